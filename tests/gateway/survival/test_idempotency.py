"""Idempotency-Key: the same key and body never make a second turn."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, delta, fail, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, StartGateway


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


def test_a_repeated_post_replays_the_stream_from_its_start(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str]
) -> None:
    first, second = chat.streaming("Hi", headers=key), chat.streaming("Hi", headers=key)
    assert second.frames == first.frames
    assert second.headers["x-task-id"] == first.headers["x-task-id"] == first.task_id
    assert fake.posts == 1
    assert len(chat.messages(first.conversation_id)) == 1
    assert len(chat.conversations()["data"]) == 1


def test_a_repeated_post_joins_the_running_turn(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str], gate: Gate
) -> None:
    fake.script = script(text("One "), gate, delta("two"), succeed())
    with chat.open(headers=key) as first, chat.open(headers=key) as second:
        assert first.until("One ") == second.until("One ")
        gate.open()
        assert first.rest().frames == second.rest().frames
    assert fake.posts == 1


def test_a_repeated_post_gets_the_same_json_in_every_response_mode(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str]
) -> None:
    """The response mode is no part of what is compared."""
    answered = chat.blocking("Hi", headers=key)
    assert chat.blocking("Hi", headers=key) == answered
    assert chat.streaming("Hi", headers=key).answer == answered["answer"]
    later = chat.background("Hi", headers=key)
    assert (later["task_id"], later["message_id"]) == (answered["task_id"], answered["message_id"])
    assert fake.posts == 1


def test_ignored_fields_are_not_compared(chat: Chat, key: dict[str, str]) -> None:
    first = chat.blocking("Hi", headers=key, inputs={"a": 1, "b": [2]})
    again = chat.blocking(
        "Hi", headers=key, inputs={"b": [2], "a": 1}, trace_id="x", auto_generate_name=False, files=None
    )
    assert again == first


@pytest.mark.parametrize(
    "change",
    [
        {"query": "Ho"},
        {"inputs": {"a": 1}},
        {"conversation_id": str(uuid4())},
        {"files": [{"type": "image", "transfer_method": "remote_url", "url": "https://x.test/a.png"}]},
    ],
)
@pytest.mark.parametrize("mode", ["streaming", "blocking", "background"])
def test_another_body_is_a_conflict(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str], change: dict[str, Any], mode: str
) -> None:
    first = chat.blocking("Hi", headers=key)
    body: dict[str, Any] = {"query": "Hi", "response_mode": mode, **change}
    refused(chat.post(headers=key, **body), 409, "idempotency_conflict")
    assert chat.blocking("Hi", headers=key) == first
    assert fake.posts == 1


def test_another_body_is_a_conflict_even_while_the_turn_runs(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str], gate: Gate
) -> None:
    fake.script = script(text("One"), gate, succeed())
    with chat.open("Hi", headers=key) as stream:
        conversation_id = stream.next()["conversation_id"]
        changed = chat.post("Ho", headers=key, conversation_id=conversation_id)
        refused(changed, 409, "idempotency_conflict")
        gate.open()
        stream.rest()


@pytest.mark.parametrize("continued", [False, True], ids=["new conversation", "same conversation"])
def test_concurrent_posts_with_one_key_make_one_run(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend, key: dict[str, str], continued: bool
) -> None:
    """Nobody is told `busy` by a turn that is its own."""
    body = {"conversation_id": chat.blocking("Before")["conversation_id"]} if continued else {}
    posts = fake.posts
    together = Barrier(8)

    def post(number: int) -> httpx.Response:
        with server.client() as client:
            together.wait(10)
            mode = ("blocking", "streaming", "background")[number % 3]
            return Chat(client, chat.user).post("Hi", headers=key, response_mode=mode, **body)

    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(post, range(8)))
    assert {response.status_code for response in responses} == {200, 202}
    tasks = {response.headers.get("x-task-id") or response.json()["task_id"] for response in responses}
    assert len(tasks) == 1
    assert fake.posts == posts + 1


def test_another_user_can_use_the_same_key(chat: Chat, fake: ScriptedBackend, key: dict[str, str]) -> None:
    mine = chat.blocking("Hi", headers=key)
    theirs = Chat(chat.client, f"{chat.user}-2").blocking("Ho", headers=key)
    assert mine["task_id"] != theirs["task_id"]
    assert theirs["answer"] == "You said: Ho."
    assert fake.posts == 2


def test_a_refused_post_does_not_use_up_its_key(
    rejecting: Chat, fake: ScriptedBackend, key: dict[str, str], gate: Gate
) -> None:
    chat = rejecting
    refused(chat.post("", headers=key), 400, "invalid_param")
    refused(chat.post("Hi", headers=key, conversation_id=str(uuid4())), 404, "not_found")
    fake.queue(script(text("One"), gate, succeed()))
    with chat.open("Hi") as stream:
        conversation_id = stream.next()["conversation_id"]
        refused(chat.post("Ho", headers=key, conversation_id=conversation_id), 409, "conversation_busy")
        gate.open()
        stream.rest()
    # Another body than any of those, and it is served.
    assert chat.blocking("At last", headers=key)["answer"] == "You said: At last."


def test_a_repeated_post_of_a_failed_turn_gets_the_failure(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str]
) -> None:
    """It happened: a client that wants another try takes another key."""
    fake.queue(script(fail("InvokeRateLimitError")))
    refused(chat.post("Hi", headers=key), 429, "rate_limit_error")
    refused(chat.post("Hi", headers=key), 429, "rate_limit_error")
    refused(chat.post("Hi", headers=key, response_mode="streaming"), 429, "rate_limit_error")
    assert fake.posts == 1


@pytest.mark.parametrize("value", ["", "x" * 256])
def test_a_key_that_is_too_long_is_refused(chat: Chat, value: str) -> None:
    refused(chat.post("Hi", headers={"Idempotency-Key": value}), 400, "invalid_param")
    assert chat.blocking("Hi", headers={"Idempotency-Key": "x" * 255})["answer"]


def test_a_key_survives_a_restart(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str, key: dict[str, str]
) -> None:
    server = start_gateway()
    with server.client() as client:
        answered = Chat(client, user).blocking("Hi", headers=key)
        streamed = Chat(client, user).streaming("Hi", headers=key)
    server.stop()
    with start_gateway().client() as client:
        chat = Chat(client, user)
        assert chat.blocking("Hi", headers=key) == answered
        assert chat.streaming("Hi", headers=key).frames == streamed.frames
        assert chat.background("Hi", headers=key)["status"] == "completed"
        refused(chat.post("Ho", headers=key), 409, "idempotency_conflict")
    assert fake.posts == 1


@pytest.mark.usefixtures("early_failures_have_a_status")
def test_a_failed_turn_has_no_retry_after_for_the_same_key(
    chat: Chat, fake: ScriptedBackend, key: dict[str, str]
) -> None:
    """The key remembers the failure, so trying again with it is no use: no Retry-After."""
    fake.script = script(fail("InvokeConnectionError"))
    for mode in ("streaming", "blocking"):
        response = chat.post(response_mode=mode, headers=key)
        refused(response, 503, "provider_unavailable")
        assert "Retry-After" not in response.headers
        key = {"Idempotency-Key": str(uuid4())}
    assert fake.posts == 2
