"""SIGTERM under load: nothing new, nothing lost, and gone in time (R12)."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil  # pyrefly: ignore[untyped-import]
import pytest

from agent_gateway.domain.turns import Turn
from agent_gateway.store.turns.ownership import OwnedTurns
from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, Script, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, adopted, begun, drives
from tests.support.gateway_process import START_SECONDS
from tests.support.gateway_server import API_KEY, BOUND, GatewayServer, gone, is_ready, wait_until
from tests.support.json_type import Json

pytestmark = pytest.mark.usefixtures("no_turn_is_taken_back")

LONG_LEASE = 60.0
LONG_DRAIN = 60.0
"""Longer than any wait here: what happens within the test did not wait for the end of the drain."""
"""Nobody waits for it in these tests: what is released is adopted at once."""


def test_a_draining_process_hands_its_turns_over(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Readers with ids are sent away and resume elsewhere; those without are served to the end."""
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    fake.script = script(said("So ", "far"), gate, delta(", so good"), succeed())
    chat, other = fleet.chat(one, user), fleet.chat(two, user)
    blocking: list[Json] = []
    caller = threading.Thread(target=lambda: blocking.append(chat.blocking()))
    caller.start()
    with chat.open(params={"ids": 1}) as stream, chat.open() as plain, chat.follow(plain.task_id) as reader:
        for each in (stream, plain, reader):
            each.until("far")
        fake.wait_until(lambda: fake.open_streams == 3)
        one.begin_stop(LONG_DRAIN)
        sent_away = [stream.rest(), reader.rest()]
        for heard in sent_away:
            assert heard.answer == "So far"
            assert heard.kinds == ["message", "message"]
            last = heard.blocks[-1]
            assert last.startswith(b"retry: ")
            assert 50 <= int(last.removeprefix(b"retry: ")) <= 1000
        adopted(two, stream.task_id, plain.task_id)
        wait_until(lambda: len(two.gateway.live.running()) == 3)

        refused(chat.client.get("/readyz"), 503, "service_unavailable")
        assert chat.client.get("/healthz").status_code == 200
        for mode in ("streaming", "blocking", "background"):
            response = chat.post(response_mode=mode)
            assert refused(response, 503, "service_unavailable")
            assert int(response.headers["Retry-After"]) >= 1

        with other.follow(stream.task_id, after=sent_away[0].ids[-1]) as resumed:
            gate.open()
            rest = resumed.rest()
            heard = plain.rest()
    assert sent_away[0].frames + rest.frames == other.resumed(stream.task_id).frames
    assert (heard.kinds[-1], heard.answer) == ("message_end", "So far, so good")
    caller.join(BOUND)
    assert blocking[0]["answer"] == "So far, so good"
    gone(one)
    assert (fake.posts, fake.cancels) == (3, [])
    for task_id in (stream.task_id, plain.task_id, blocking[0]["task_id"]):
        turn = fleet.rows(task_id).turn
        assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 3, 0)


def test_a_drain_ends_in_time(fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str) -> None:
    """A client that still reads then is cut off; the turn continues, because another process has it now."""
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    fake.script = script(said("So far"), gate, succeed())
    with fleet.chat(one, user).open() as plain:
        plain.until("So far")
        began = time.monotonic()
        one.begin_stop(1.0)
        assert plain.rest().kinds == ["message"]
    gone(one)
    assert time.monotonic() - began > 0.9
    gate.open()
    assert fleet.chat(two, user).resumed(plain.task_id).kinds == ["message", "message_end"]


def test_an_idle_process_stops_at_once(fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str) -> None:
    """Also one whose turns nobody reads."""
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    fake.script = script(said("So far"), gate, succeed())
    turns = [fleet.chat(one, user).background()["task_id"] for _ in range(5)]
    fake.wait_until(lambda: fake.open_streams == 5)
    one.begin_stop(LONG_DRAIN)
    gone(one)
    adopted(two, *turns)
    gate.open()
    for task_id in turns:
        assert fleet.chat(two, user).resumed(task_id).last["event"] == "message_end"
    assert fake.posts == 5


def test_a_turn_adopted_as_the_drain_begins_is_handed_over(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM between the commit that adopts and its answer: the turn is ours already, and not left alone."""
    one = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, succeed())
    adopt, live, adopting = OwnedTurns.adopt, one.gateway.live, threading.Event()

    async def slow(owned: OwnedTurns, **options: bool) -> list[Turn]:
        turns = await adopt(owned, **options)
        if turns and owned is one.gateway.turns.owned:
            adopting.set()
            await live.draining.wait()
            for _ in range(1000):
                await asyncio.sleep(0)
        return turns

    monkeypatch.setattr(OwnedTurns, "adopt", slow)
    task_id = begun(one, user, "Hello")
    fleet.change(task_id, owner=None, lease_until=None)
    assert adopting.wait(BOUND)
    two = fleet.start(lease_seconds=LONG_LEASE)
    one.begin_stop(LONG_DRAIN)
    gone(one)
    adopted(two, task_id)
    gate.open()
    heard = fleet.chat(two, user).resumed(task_id)
    assert (heard.answer, heard.last["event"]) == ("So far", "message_end")
    assert fleet.rows(task_id).turn.outcome == "completed"
    assert fake.posts == 1


def test_a_run_that_is_being_created_is_handed_over_when_it_is_known(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """SIGTERM while POST /runs is on its way: neither lost nor asked for twice."""
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    reached, proceed = threading.Event(), threading.Event()

    def slow(_: Json) -> Script:
        reached.set()
        proceed.wait(BOUND)
        return script(said("So far"), gate, succeed())

    fake.queue(slow)
    task_id = fleet.chat(one, user).background()["task_id"]
    assert reached.wait(BOUND)
    one.begin_stop(20.0)
    wait_until(one.gateway.live.draining.is_set)
    assert not drives(two, task_id)
    proceed.set()
    gone(one)
    gate.open()
    assert fleet.chat(two, user).resumed(task_id).answer == "So far"
    assert (fake.posts, fleet.rows(task_id).turn.outcome) == (1, "completed")


@pytest.mark.slow
def test_turns_posted_during_sigterm_are_refused_or_answered_once(
    fleet: Fleet, fake: ScriptedBackend, user: str
) -> None:
    """At whatever moment: refused or answered, once, and never interrupted."""
    two = fleet.start(lease_seconds=LONG_LEASE)
    other = fleet.chat(two, user)
    for round_ in range(3):
        one = fleet.start(lease_seconds=LONG_LEASE)
        chats = [fleet.chat(one, user) for _ in range(6)]
        responses: list[httpx.Response] = []

        def post(chat: Chat, number: int, responses: list[httpx.Response] = responses) -> None:
            for attempt in range(20):
                try:
                    response = chat.post(f"{number}.{attempt}", response_mode="background")
                except httpx.TransportError:
                    return
                responses.append(response)
                if response.status_code != 202:
                    return

        posters = [threading.Thread(target=post, args=(chat, n)) for n, chat in enumerate(chats)]
        for poster in posters:
            poster.start()
        wait_until(lambda responses=responses, round_=round_: len(responses) > 4 * round_)
        one.begin_stop(20.0)
        for poster in posters:
            poster.join(BOUND)
        gone(one)
        for response in responses:
            if response.status_code == 202:
                heard = other.resumed(response.json()["task_id"])
                assert heard.last["event"] == "message_end", heard.last
            else:
                refused(response, 503, "service_unavailable")
    ids = [request.body["idempotency_key"] for request in fake.requests]
    assert len(ids) == len(set(ids))


# -- turns that cannot be handed over --------------------------------------------------------------


@pytest.mark.slow
def test_embedded_runs_continue_until_the_end_of_the_drain(fleet: Fleet, user: str) -> None:
    """They live in the process: what ends in time is answered, the rest is interrupted, visibly."""
    one, two = (fleet.start(backend_url="") for _ in range(2))
    chat = fleet.chat(one, user)
    with (
        chat.open("Count to 15") as short,
        chat.open("Tell me a story", params={"ids": 1}) as long,
    ):
        short.next()
        long.next()
        began = time.monotonic()
        one.begin_stop(6.0)
        assert short.rest().last["event"] == "message_end"
        heard = long.rest()
        assert (heard.last["event"], heard.last["code"]) == ("error", "turn_interrupted")
        assert time.monotonic() - began > 5.5
    gone(one)
    assert fleet.rows(long.task_id).message.answer == heard.answer
    assert fleet.chat(two, user).resumed(long.task_id).frames == heard.frames


def test_a_single_process_serves_its_turns_to_their_end_while_draining(
    fake: ScriptedBackend, gate: Gate, user: str, tmp_path: Path
) -> None:
    """Nobody could take them over: they continue where they are, with all their readers."""
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with GatewayServer(tmp_path, backend_url=fake.url) as server, server.client() as client:
        chat = Chat(client, user)
        with chat.open() as plain, chat.open(params={"ids": 1}) as stream:
            plain.until("So far")
            stream.until("So far")
            server.begin_stop(10.0)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            gate.open()
            for each in (plain, stream):
                heard = each.rest()
                assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
        gone(server)


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_share_a_port_and_drain_under_live_streams(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """`serve --workers 2`: SIGTERM hands all turns to another process, and the clients continue there."""
    workers = fleet.process("--workers", "2", DRAIN_SECONDS=LONG_DRAIN, LEASE_SECONDS=LONG_LEASE)
    other = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with (
        httpx.Client(
            base_url=workers.url, headers=headers, limits=limits, timeout=BOUND, trust_env=False
        ) as client,
        ExitStack() as stack,
    ):
        wait_until(lambda: is_ready(client), START_SECONDS)
        chat = Chat(client, user)
        streams = [stack.enter_context(chat.open(params={"ids": number % 2})) for number in range(12)]
        for stream in streams:
            stream.until("So far")
        workers.send(signal.SIGTERM)
        for stream in streams[1::2]:
            heard = stream.rest()
            assert heard.kinds == ["message"]
            assert heard.blocks[-1].startswith(b"retry: ")
        adopted(other, *(stream.task_id for stream in streams))
        gate.open()
        for stream in streams[::2]:
            assert stream.rest().answer == "So far, so good"
        assert workers.exited() == 0
    for stream in streams:
        assert fleet.chat(other, user).resumed(stream.task_id).answer == "So far, so good"
    assert fake.posts == 12


@pytest.mark.slow
def test_workers_drain_when_their_parent_is_killed(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """`serve --workers 2`, and `kill -9` of the parent: the workers drain and free the port."""
    workers = fleet.process("--workers", "2", DRAIN_SECONDS=15, LEASE_SECONDS=LONG_LEASE)
    other = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with workers.client() as client:
        wait_until(lambda: is_ready(client), START_SECONDS)
        with Chat(client, user).open(params={"ids": 1}) as stream:
            stream.until("So far")
            children = workers.children()
            workers.send(signal.SIGKILL)
            assert stream.rest().kinds == ["message"], "it was told to come back"
    adopted(other, stream.task_id)
    _, alive = psutil.wait_procs(children, timeout=BOUND)
    assert not alive
    said_by_workers = workers.output.count("the parent of this worker has died")
    assert said_by_workers == 2
    assert "Traceback" not in workers.output
    gate.open()
    assert fleet.chat(other, user).resumed(stream.task_id).answer == "So far, so good"


def test_workers_need_postgres(tmp_path: Path) -> None:
    """An SQLite database belongs to one process."""
    refusal = subprocess.run(
        [sys.executable, "-m", "agent_gateway", "serve", "--port", "0", "--workers", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert refusal.returncode == 2
    assert "Postgres" in refusal.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_a_process(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, number: signal.Signals
) -> None:
    """With readers of all kinds; it exits as a process does that was asked to."""
    process = fleet.process(LEASE_SECONDS=LONG_LEASE).ready()
    other = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chat = fleet.chat(process, user)
    with chat.open(params={"ids": 1}) as stream, chat.open() as plain:
        stream.until("So far")
        plain.until("So far")
        process.send(number)
        assert stream.rest().blocks[-1].startswith(b"retry: ")
        adopted(other, stream.task_id, plain.task_id)
        gate.open()
        assert plain.rest().answer == "So far, so good"
    process.exited()
    assert fleet.chat(other, user).resumed(stream.task_id, after=1).answer == ", so good"
