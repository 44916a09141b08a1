"""SIGTERM when no process can take over, when the database is away, when the backend hangs."""

import asyncio
import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress

import httpx
import pytest

from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Turn
from agent_gateway.limits import DrainLimits, Limits, MaintenanceIntervals, RegistryLimits
from agent_gateway.server.listener import Listener
from agent_gateway.store.turns.ownership import OwnedTurns
from tests.support.chat import PING, Chat, refused
from tests.support.fakes.script import Gate, Script, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import postgres_proxy, through
from tests.support.fleet import Fleet
from tests.support.gateway_process import START_SECONDS
from tests.support.gateway_server import (
    API_KEY,
    BOUND,
    GatewayServer,
    StartGateway,
    gone,
    is_ready,
    wait_until,
)
from tests.support.json_type import Json
from tests.support.raw_http import RecordingServer
from tests.support.rows import installed

LONG_LEASE = 60.0
DRAIN = 2.0
A_MOMENT = 5.0
"""How much longer than the drain an exit may take here: of it, most is for a busy machine."""


def taken_back(fleet: Fleet, *task_ids: str) -> None:
    """Wait until these turns were released and have an owner again."""
    wait_until(
        lambda: all(
            turn.epoch == 3 and turn.owner is not None
            for turn in (fleet.rows(task_id).turn for task_id in task_ids)
        )
    )


def test_a_draining_single_process_completes_its_turns(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """No process adopts its released turns: all readers stay, and none gets an error."""
    server = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chat = fleet.chat(server, user)
    blocking: list[Json] = []
    caller = threading.Thread(target=lambda: blocking.append(chat.blocking()), daemon=True)
    caller.start()
    with chat.open(params={"ids": 1}) as stream, chat.open() as plain:
        for each in (stream, plain):
            each.until("So far")
        unread = chat.background()
        fake.wait_until(lambda: fake.open_streams == 4)
        server.begin_stop(30.0)
        taken_back(fleet, stream.task_id, plain.task_id, unread["task_id"])
        # New readers are served as well: there is no other process.
        with chat.follow(stream.task_id) as late:
            late.until("So far")
            gate.open()
            for each in (stream, plain, late):
                heard = each.rest()
                assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
    caller.join(BOUND)
    assert blocking[0]["answer"] == "So far, so good"
    gone(server)
    for task_id in (stream.task_id, plain.task_id, blocking[0]["task_id"], unread["task_id"]):
        turn = fleet.rows(task_id).turn
        assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 3, 0)
    assert (fake.posts, fake.cancels) == (4, [])


def test_the_only_process_ends_a_turn_without_recent_readers(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """An offered turn is not dropped for want of readers: it may come back."""
    fleet.limits = Limits(
        registry=RegistryLimits(unread_seconds=0.0), maintenance=MaintenanceIntervals(status_seconds=0.1)
    )
    server = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    task_id = fleet.chat(server, user).background()["task_id"]
    fake.wait_until(lambda: fake.open_streams == 1)
    server.begin_stop(30.0)
    taken_back(fleet, task_id)
    gate.open()
    gone(server)
    turn = fleet.rows(task_id).turn
    assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 3, 0)
    assert (fake.posts, fake.cancels) == (1, [])


def test_the_only_process_serves_its_queued_turns_too(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """It leaves the queue during the drain and has no owner, but its reader is here."""
    server = installed(start_gateway(lease_seconds=LONG_LEASE))
    fake.queue(script(said("First"), gate, succeed()))
    with server.client() as client:
        chat = Chat(client, user)
        with chat.open("One") as first:
            conversation = first.until("First")[0]["conversation_id"]
            with chat.open("Two", conversation_id=conversation) as second:
                assert second.block() == PING
                server.begin_stop(30.0)
                wait_until(lambda: client.get("/readyz").status_code == 503)
                gate.open()
                assert first.rest().last["event"] == "message_end"
                heard = second.rest()
    assert (heard.answer, heard.last["event"]) == ("You said: Two.", "message_end")
    gone(server)
    assert fake.posts == 2


def test_a_turn_beyond_the_drain_is_left_to_the_next_process(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """At the end of the drain the turn has no owner; the next process continues it at once."""
    fleet.limits = Limits(drain=DrainLimits(together_seconds=0.0, adopt_seconds=0.5))
    server = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with fleet.chat(server, user).open() as plain:
        plain.until("So far")
        server.begin_stop(4.0)
        assert plain.rest().kinds == ["message"]
    gone(server)
    # It was released, taken back when no process adopted it, and released again.
    turn = fleet.rows(plain.task_id).turn
    assert (turn.owner, turn.epoch) == (None, 4)
    gate.open()
    heard = fleet.chat(fleet.start(lease_seconds=LONG_LEASE), user).resumed(plain.task_id)
    assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
    assert fake.posts == 1


@pytest.mark.slow
def test_workers_that_stop_together_serve_their_turns_to_their_end(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """`serve --workers 2`: none of them adopts what the others release."""
    workers = fleet.process("--workers", "2", DRAIN_SECONDS=30, LEASE_SECONDS=LONG_LEASE)
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
        streams = [stack.enter_context(chat.open(params={"ids": number % 2})) for number in range(6)]
        for stream in streams:
            stream.until("So far")
        workers.send(signal.SIGTERM)
        taken_back(fleet, *(stream.task_id for stream in streams))
        gate.open()
        for stream in streams:
            heard = stream.rest()
            assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
        assert workers.exited() == 0
    assert fake.posts == 6


@pytest.mark.slow
def test_a_process_about_to_stop_adopts_nothing(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Although it looks for turns all the time."""
    fleet.limits = Limits(
        maintenance=MaintenanceIntervals(sweep_seconds=0.01), drain=DrainLimits(together_seconds=5.0)
    )
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with fleet.chat(one, user).open() as stream:
        stream.until("So far")
        one.begin_stop(30.0)
        with one.client() as client:
            wait_until(lambda: not is_ready(client))
        two.begin_stop(30.0)
        taken_back(fleet, stream.task_id)
        gate.open()
        heard = stream.rest()
    assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
    turn = fleet.rows(stream.task_id).turn
    assert (turn.outcome, turn.epoch) == ("completed", 3)


def test_a_draining_process_does_not_adopt_the_turns_it_offers(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep of its own may be on its way when it begins to leave."""
    fleet.limits = Limits(drain=DrainLimits(together_seconds=0.0))
    server = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with fleet.chat(server, user).open() as stream:
        stream.until("So far")
        task_id, draining = TaskId(stream.task_id), server.gateway.live.draining
        adopt, sweeping = OwnedTurns.adopt, threading.Event()

        async def late(owned: OwnedTurns, **options: bool) -> list[Turn]:
            if owned is not server.gateway.turns.owned:
                # Another server of this process has another event loop, and waits for nothing of this one.
                return await adopt(owned, **options)
            sweeping.set()
            await draining.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    while not (await server.gateway.turns.reader.statuses([task_id]))[task_id].free:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            return await adopt(owned, **options)

        monkeypatch.setattr(OwnedTurns, "adopt", late)
        assert sweeping.wait(BOUND)
        server.begin_stop(30.0)
        taken_back(fleet, stream.task_id)
        gate.open()
        heard = stream.rest()
    assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
    turn = fleet.rows(stream.task_id).turn
    assert (turn.outcome, turn.epoch) == ("completed", 3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["down", "frozen", "frozen before"])
def test_a_process_without_its_database_stops_in_time(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, how: str
) -> None:
    """With turns, readers and requests that wait for it; without a traceback."""
    fake.script = script(said("So far"), gate, succeed())
    with postgres_proxy(fleet.database_url) as proxy:
        process = fleet.process(
            DATABASE_URL=through(proxy, fleet.database_url), DRAIN_SECONDS=DRAIN, LEASE_SECONDS=LONG_LEASE
        )
        chat = fleet.chat(process, user)
        wait_until(lambda: chat.client.get("/readyz").status_code == 200)
        with chat.open() as plain, chat.open(params={"ids": 1}) as stream:
            plain.until("So far")
            stream.until("So far")
            if how == "down":
                proxy.cut()
            else:
                proxy.freeze()
            waiting = [threading.Thread(target=_ask, args=(chat,), daemon=True) for _ in range(4)]
            for each in waiting:
                each.start()
            if how == "frozen before":
                # Heartbeats and requests hang in it by now.
                with pytest.raises(httpx.TimeoutException):
                    chat.client.get("/conversations", params={"user": user}, timeout=3.0)
            process.send(signal.SIGTERM)
            process.exited()
        # Nothing had to be cut: all that waited for the database was told that the process leaves.
        assert "timeout graceful shutdown exceeded" not in process.output
        assert "Traceback" not in process.output
        assert "rror while closing" not in process.output
    # The lease expires, and another process continues.
    for task_id in (plain.task_id, stream.task_id):
        fleet.change(task_id, owner=None, lease_until=None)
    gate.open()
    other = fleet.start(lease_seconds=LONG_LEASE)
    for task_id in (plain.task_id, stream.task_id):
        assert fleet.chat(other, user).resumed(task_id).last["event"] == "message_end"


def _ask(chat: Chat) -> None:
    with suppress(httpx.TransportError):
        chat.post()


def test_a_run_whose_creation_hangs_does_not_delay_shutdown(
    fleet: Fleet, fake: ScriptedBackend, user: str
) -> None:
    """The backend takes POST /runs and never answers: the turn fails visibly, and the process is gone."""
    process = fleet.process(DRAIN_SECONDS=DRAIN, LEASE_SECONDS=LONG_LEASE).ready()
    fake.script = lambda _: Script(create="hang")
    chat = fleet.chat(process, user)
    with chat.open() as plain:
        fake.wait_until(lambda: fake.posts == 1)
        began = time.monotonic()
        process.send(signal.SIGTERM)
        heard = plain.rest()
        assert (heard.last["event"], heard.last["code"]) == ("error", "turn_interrupted")
    process.exited()
    assert time.monotonic() - began < DRAIN + A_MOMENT
    assert "Traceback" not in process.output
    turn = fleet.rows(plain.task_id).turn
    assert (turn.outcome, turn.error_code) == ("failed", "turn_interrupted")


def test_a_draining_process_refuses_new_turns_and_serves_the_old(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    server: GatewayServer = fleet.start(lease_seconds=LONG_LEASE)
    fake.script = script(said("So far"), gate, succeed())
    chat = fleet.chat(server, user)
    with chat.open() as plain:
        plain.until("So far")
        server.begin_stop(30.0)
        taken_back(fleet, plain.task_id)
        refused(chat.post(), 503, "service_unavailable")
        refused(chat.client.get("/readyz"), 503, "service_unavailable")
        chat.stop(plain.task_id)
        assert plain.rest().last["event"] == "message_end"
    gone(server)
    assert fleet.rows(plain.task_id).turn.outcome == "stopped"


def test_a_connection_accepted_during_shutdown_does_not_delay_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Shutdown closes all known connections; it would wait for one that is not among them yet."""
    connect = Listener._connect

    async def late(listener: Listener, accepted: socket.socket) -> None:
        recording.server.should_exit = True
        while not listener._closed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await connect(listener, accepted)

    monkeypatch.setattr(Listener, "_connect", late)
    with RecordingServer() as recording, recording.client() as client:
        assert client.is_closed()
    assert "timeout graceful shutdown exceeded" not in caplog.text
