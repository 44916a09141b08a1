"""What an app takes at most: turns at once, requests a minute, characters, bytes."""

import time
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.store.db.tables import request_counts
from tests.support.chat import Chat, refused
from tests.support.concurrency import at_once
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet
from tests.support.gateway_server import NO_KEY_IS_REMEMBERED, StartGateway, wait_until
from tests.support.rows import active_turns, apply_app, look, make_key


def key_of(url: str, **limits: int) -> str:
    """A key of an app with these limits."""
    return make_key(url, apply_app(url, "limited", limits=limits).app_id)[1]


def waiting(fake: ScriptedBackend, gate: Gate) -> None:
    """Every run says something and waits."""
    fake.script = lambda _: script(said("Yes"), gate, succeed())


def too_many(response: httpx.Response) -> None:
    """A refusal that says when to try again."""
    refused(response, 429, "too_many_requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 60


def race(chats: list[Chat], posts: int) -> tuple[list[str], int]:
    """Posts at the same moment: the tasks that began, and how many were refused."""

    def post(number: int) -> httpx.Response:
        headers = {"Idempotency-Key": str(uuid4())} if number % 3 else None
        return chats[number % len(chats)].post(str(number), response_mode="background", headers=headers)

    answers = at_once(*[lambda number=number: post(number) for number in range(posts)])
    for answer in answers:
        if answer.status_code != 202:
            too_many(answer)
    begun = [answer.json()["task_id"] for answer in answers if answer.status_code == 202]
    return begun, posts - len(begun)


def test_turns_beyond_the_limit_of_the_app_are_refused(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    waiting(fake, gate)
    with start_gateway().client(key_of(database_url, concurrent_turns=3)) as client:
        chat = Chat(client, user)
        begun, lost = race([chat], 8)
        assert (len(begun), lost) == (3, 5)
        for mode in ("streaming", "blocking", "background"):
            too_many(chat.post(response_mode=mode))
        assert len(chat.conversations()["data"]) == 3, "a refused message leaves nothing"
        chat.stop(begun[0])
        wait_until(lambda: active_turns(database_url) == 2)
        assert chat.background()["status"] == "running"
        too_many(chat.post())


def test_two_processes_share_the_limit_of_turns(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Again and again, since an overshoot is a matter of luck."""
    waiting(fake, gate)
    key = key_of(fleet.database_url, concurrent_turns=3)
    chats = [fleet.chat(fleet.start(), user, key) for _ in range(2)]
    for _ in range(4):
        begun, lost = race(chats, 10)
        assert (len(begun), lost) == (3, 7)
        assert active_turns(fleet.database_url) == 3
        at_once(*[lambda task=task: chats[0].stop(task) for task in begun])
        wait_until(lambda: active_turns(fleet.database_url) == 0)


def test_a_queued_message_takes_the_slot_of_the_turn_before_it(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    second = Gate()
    fake.queue(script(said("First"), gate, succeed()), script(said("Second"), second, succeed()))
    with start_gateway().client(key_of(database_url, concurrent_turns=1)) as client:
        chat = Chat(client, user)
        first = chat.background("One")
        queued = chat.background("Two", conversation_id=first["conversation_id"])
        too_many(chat.post("Elsewhere"))
        gate.open()
        fake.wait_until(lambda: fake.posts == 2)
        assert active_turns(database_url) == 1
        too_many(chat.post("Elsewhere"))
        second.open()
        assert chat.resumed(queued["task_id"]).last["event"] == "message_end"
        wait_until(lambda: active_turns(database_url) == 0)
        assert chat.blocking("Elsewhere")


def test_a_repeated_post_does_not_count_as_another_turn(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    waiting(fake, gate)
    with start_gateway().client(key_of(database_url, concurrent_turns=1)) as client:
        chat = Chat(client, user)
        once = {"Idempotency-Key": "once"}
        turn = chat.background("One", headers=once)
        too_many(chat.post("One", headers={"Idempotency-Key": "another"}))
        assert chat.background("One", headers=once)["task_id"] == turn["task_id"]
        gate.open()
        assert chat.streaming("One", headers=once).task_id == turn["task_id"]
    assert fake.posts == 1


def in_one_minute(story: Callable[[], None]) -> None:
    """Tell it again when another minute has begun meanwhile, in which all is counted anew."""
    began = int(time.time()) // 60
    try:
        story()
    except AssertionError:
        if int(time.time()) // 60 == began:
            raise
        story()


def test_requests_beyond_the_rate_limit_are_refused(
    start_gateway: StartGateway, fake: ScriptedBackend, database_url: str, user: str
) -> None:
    server = start_gateway()
    other = server.client(key_of(database_url, requests_per_minute=4))

    def story() -> None:
        with server.client(key_of(database_url, requests_per_minute=4)) as client:
            chat = Chat(client, user)
            once = {"Idempotency-Key": f"once-{time.time()}"}
            turn = chat.blocking(headers=once)
            assert client.get("/info").status_code == 200
            chat.messages(turn["conversation_id"])
            chat.blocking()
            for path in ("/info", "/conversations"):
                too_many(client.get(path))
            begun = fake.posts
            for mode in ("streaming", "blocking", "background"):
                too_many(chat.post(response_mode=mode))
            assert fake.posts == begun
            # A request that only continues a turn is not counted.
            assert chat.blocking(headers=once) == turn
            assert chat.resumed(turn["task_id"]).last["event"] == "message_end"
            chat.stop(turn["task_id"])
            assert other.get("/info").status_code == 200, "another key counts for itself"

    with other:
        in_one_minute(story)


def test_the_rate_limit_starts_again_each_minute(start_gateway: StartGateway, database_url: str) -> None:
    server = start_gateway()

    async def a_minute_later(session: AsyncSession) -> None:
        await session.execute(update(request_counts).values(minute=request_counts.c.minute - 1))

    def story() -> None:
        with server.client(key_of(database_url, requests_per_minute=1)) as client:
            assert client.get("/info").status_code == 200
            too_many(client.get("/info"))
            look(database_url, a_minute_later)
            assert client.get("/info").status_code == 200
            too_many(client.get("/info"))

    in_one_minute(story)


def test_two_processes_share_the_rate_limit(fleet: Fleet) -> None:
    servers = [fleet.start(), fleet.start()]

    def story() -> None:
        key = key_of(fleet.database_url, requests_per_minute=5)
        clients = [fleet.chat(server, "", key).client for server in servers]
        calls = [lambda client=client: client.get("/info").status_code for client in clients * 6]
        assert sorted(at_once(*calls)) == [200] * 5 + [429] * 7

    in_one_minute(story)


def test_a_query_that_is_too_long_is_refused(
    start_gateway: StartGateway, fake: ScriptedBackend, database_url: str, user: str
) -> None:
    key = key_of(database_url, query_characters=10)
    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        once = {"Idempotency-Key": "once"}
        turn = chat.blocking("😀" * 10, headers=once)
        error = refused(chat.post("x" * 11), 400, "invalid_param")
        assert error["message"] == "query: must be at most 10 characters long"
        key_of(database_url, query_characters=5)
        refused(chat.post("😀" * 10), 400, "invalid_param")
        assert chat.blocking("😀" * 10, headers=once) == turn, "it was taken when that was allowed"
    assert fake.posts == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_body_beyond_the_limit_of_the_app_is_refused(start_gateway: StartGateway, user: str) -> None:
    with start_gateway(max_body_bytes=2000).client() as client:
        chat = Chat(client, user)
        assert chat.blocking("x" * 1500)
        refused(chat.post("x" * 2000), 413, "request_too_large")
