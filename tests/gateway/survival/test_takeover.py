"""A process dies, hangs or loses its database: another one continues its turns, and nobody can tell."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.backend.fold.translate import FOLD_VERSIONS, Fold
from agent_gateway.domain.events import GATEWAY_END, GATEWAY_REPLACE
from agent_gateway.domain.ids import RunId, TaskId
from agent_gateway.domain.turns import Turn
from agent_gateway.errors import StoreUnavailable
from agent_gateway.limits import Limits, MaintenanceIntervals
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import TurnRow
from agent_gateway.store.turns.ownership import OwnedTurns
from agent_gateway.turns import maintenance
from agent_gateway.turns.live_turn import LiveTurn
from tests.support.chat import Heard
from tests.support.fakes.script import (
    Gate,
    Script,
    Step,
    delta,
    script,
    succeed,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import LEASE_SECONDS, Fleet, adopted, begun, die, drives
from tests.support.gateway_server import BOUND, GatewayServer, wait_until
from tests.support.rows import look

STORY: list[Step] = [
    *thinking("Let me ", "think about this, for quite a while, ", "and then some more, ", "at length."),
    *said("First ", "I ", "look:"),
    *tool_call("1", "clock", {"zone": "UTC"}),
    *tool_call("2", "weather", {}),
    *tool_result("2", "weather", "rain \u2028 ☔"),
    *tool_result("1", "clock", {"hour": 9}),
    *said("It is nine ", "and it rains ☔\n\n", "data: no", "!"),
]
MODES = ("chat", "agent-chat", "agent")
TERMINAL = ("message_end", "error")


def test_a_turn_of_a_dead_process_continues_elsewhere(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Its readers come back to another process with what they saw last, and miss nothing."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(*STORY, gate, delta(" The end."), succeed())
    with fleet.chat(one, user).open(params={"ids": 1, "mode": "agent-chat"}) as stream:
        stream.until("!")
        die(one)
        before = stream.rest()
    assert not set(TERMINAL) & set(before.kinds)
    chat = fleet.chat(two, user)
    with chat.follow(before.task_id, after=before.ids[-1], mode="agent-chat") as stream:
        adopted(two, before.task_id)
        gate.open()
        after = stream.rest()
    whole = chat.resumed(before.task_id, mode="agent-chat")
    assert before.frames + after.frames == whole.frames
    assert whole.ids == sorted(set(whole.ids))
    turn = fleet.rows(before.task_id).turn
    assert (turn.state, turn.outcome, turn.epoch, turn.adoptions) == ("ended", "completed", 2, 1)
    assert fleet.rows(before.task_id).message.answer == whole.answer
    assert (fake.posts, fake.cancels) == (1, [])
    assert chat.blocking(conversation_id=before.conversation_id)["answer"] == whole.answer


@pytest.mark.parametrize("mode", MODES)
def test_any_cursor_gets_its_rest_after_an_adoption(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, mode: str
) -> None:
    """On the process that adopted the turn and on one that only follows it, during and after the turn."""
    one, two, three = fleet.start(), fleet.start(), fleet.start()
    fake.script = script(*STORY, gate, delta(" The end."), succeed())
    with fleet.chat(one, user).open(params={"ids": 1, "mode": mode}) as stream:
        stream.until("!")
        task_id = stream.task_id
        die(one)
        story = stream.rest().ids[-1]
    wait_until(lambda: drives(two, task_id) or drives(three, task_id))
    chats = [fleet.chat(two, user), fleet.chat(three, user)]
    heard: dict[tuple[int, int], Heard] = {}

    def read(number: int, cursor: int) -> None:
        heard[number, cursor] = chats[number].resumed(task_id, after=cursor, mode=mode)

    readers = [
        threading.Thread(target=read, args=(number, cursor)) for number in range(2) for cursor in range(16)
    ]
    for reader in readers:
        reader.start()
    wait_until(lambda: sum(live.readers for live in _live(two, three)) == len(readers))
    # One that hears of the end before it has read the story shows each step once, as it was at the end.
    wait_until(lambda: all(live.runner.position >= story for live in _live(two, three)))
    gate.open()
    for reader in readers:
        reader.join(BOUND)
    whole = heard[0, 0]
    assert whole.ids == sorted(set(whole.ids))
    assert whole.last["event"] == "message_end"
    for (_, cursor), one_heard in heard.items():
        assert one_heard.frames == whole.after(cursor)
    for chat in chats:
        for cursor in range(whole.ids[-1]):
            assert chat.resumed(task_id, last_event_id=cursor, mode=mode).frames == whole.after(cursor)
        assert chat.events(task_id, after=whole.ids[-1]).status_code == 204
    assert fake.posts == 1


@pytest.mark.slow
def test_a_killed_process_leaves_no_unfinished_turn(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """kill -9 with turns in every state: each reaches its end at the other process, with one run."""
    victim, other = fleet.process().ready(), fleet.start()
    fake.script = script(said("So far"), gate, succeed())
    chat = fleet.chat(victim, user)
    running = [chat.background() for _ in range(3)]
    fake.wait_until(lambda: fake.posts == 3)
    queued = chat.background("Next", conversation_id=running[0]["conversation_id"])
    for turn in running:
        wait_until(lambda turn=turn: fleet.rows(turn["task_id"]).turn.state == "running")
    with chat.open("Cut") as stream:
        stream.until("So far")
        victim.send(signal.SIGKILL)
        cut = stream.task_id
        # However httpx calls a broken connection.
        with suppress(httpx.TransportError):
            assert "message_end" not in stream.rest().kinds
    victim.exited()
    gate.open()
    again = fleet.chat(other, user)
    for task_id in (*(turn["task_id"] for turn in running), cut, queued["task_id"]):
        heard = again.resumed(task_id)
        assert (heard.answer, heard.last["event"]) == ("So far", "message_end")
        assert fleet.rows(task_id).turn.outcome == "completed"
    assert fake.posts == 5


def test_late_writes_of_a_frozen_process_change_nothing(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """SIGSTOP for longer than a lease, SIGCONT: its finish is fenced, its readers hear the same end (I9)."""
    frozen, other = fleet.process().ready(), fleet.start()
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with fleet.chat(frozen, user).open(params={"ids": 1}) as stream:
        stream.until("So far")
        frozen.send(signal.SIGSTOP)
        adopted(other, stream.task_id)
        gate.open()
        elsewhere = fleet.chat(other, user).resumed(stream.task_id)
        ended = fleet.rows(stream.task_id)
        frozen.send(signal.SIGCONT)
        heard = stream.rest()
    assert heard.frames == elsewhere.frames
    assert heard.answer == "So far, so good"
    # One more turn at the process that was frozen: all it had to say is said.
    again = fleet.chat(frozen, user).blocking(conversation_id=heard.conversation_id)
    assert again["answer"] == "So far, so good"
    after = fleet.rows(stream.task_id)
    assert after.turn.model_dump() == ended.turn.model_dump()
    assert after.message.model_dump() == ended.message.model_dump()
    assert (after.turn.epoch, fake.posts) == (2, 2)


@pytest.mark.parametrize("stopped", [False, True])
def test_an_unknown_run_is_not_created_again(
    fleet: Fleet, fake: ScriptedBackend, user: str, *, stopped: bool
) -> None:
    """The process dies between POST /runs and its answer: the turn fails visibly, or was stopped (R4)."""
    one, two = fleet.start(), fleet.start()
    fake.queue(Script(create="hang"))
    turn = fleet.chat(one, user).background()
    fake.wait_until(lambda: fake.posts == 1)
    die(one)
    chat = fleet.chat(two, user)
    if stopped:
        chat.stop(turn["task_id"])
    heard = chat.resumed(turn["task_id"])
    assert heard.kinds == ["message_end"] if stopped else ["error"]
    assert heard.ids == [GATEWAY_END]
    row = fleet.rows(turn["task_id"]).turn
    assert (row.outcome, row.error_code) == (("stopped", None) if stopped else ("failed", "turn_interrupted"))
    assert fake.posts == 1
    assert chat.blocking(conversation_id=turn["conversation_id"])["answer"] == "You said: Hello."


def test_an_adopted_turn_without_a_run_starts(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    one = fleet.start()
    die(one)
    task_id = begun(one, user, "Planned")
    assert fleet.rows(task_id).turn.state == "planned"
    two = fleet.start()
    assert fleet.chat(two, user).resumed(task_id).answer == "You said: Planned."
    assert (fake.posts, fleet.rows(task_id).turn.epoch) == (1, 2)


@pytest.mark.slow
def test_a_turn_that_kills_its_owners_fails_after_the_limit(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """The fifth process that takes it over does not even look at its run (R11)."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("Poison"), gate, succeed())
    chat = fleet.chat(two, user)
    with fleet.chat(one, user).open() as stream:
        [event] = stream.until("Poison")
        fleet.change(stream.task_id, adoptions=4)
        die(one)
    streams = len(fake.streams)
    wait_until(lambda: fleet.rows(event["task_id"]).turn.state == "ended")
    row = fleet.rows(event["task_id"]).turn
    assert (row.outcome, row.error_code, row.adoptions) == ("failed", "turn_interrupted", 5)
    # One final read for an end that decides after all (R8), then it is cancelled.
    fake.wait_until(lambda: bool(fake.cancels))
    assert len(fake.streams) <= streams + 1
    assert [cancel.run_id for cancel in fake.cancels] == [row.run_id]
    heard = chat.resumed(event["task_id"], after=event["event_id"])
    assert heard.kinds == ["message_replace", "error"]
    fake.script = script(said("Cured"), succeed())
    assert chat.blocking(conversation_id=event["conversation_id"])["answer"] == "Cured"


@pytest.mark.parametrize("kept", [1, 0])
def test_a_checkpoint_replaces_a_trimmed_log(
    fleet: Fleet,
    fake: ScriptedBackend,
    gate: Gate,
    user: str,
    kept: int,
) -> None:
    """New readers get the past as one text and then what follows; without a join nothing is invented (R5)."""
    fleet.limits = Limits(maintenance=MaintenanceIntervals(checkpoint_seconds=0.1))
    one, two = fleet.start(), fleet.start()
    fake.script = script(*STORY, gate, delta(" The end."), delta(" Really."), succeed())
    with fleet.chat(one, user).open(params={"ids": 1}) as stream:
        stream.until("!")
        task_id = stream.task_id
        wait_until(lambda: _saved_position(fleet, task_id) == one.gateway.live.running()[0].runner.position)
        # Of the stream that is open it takes nothing.
        fake.trim(run_id_of(fleet, task_id), kept)
        die(one)
        before = stream.rest()
    chat = fleet.chat(two, user)
    with chat.follow(task_id) as fresh, chat.follow(task_id, after=before.ids[-1]) as resumed:
        if kept:
            assert fresh.next()["event"] == "message_replace"
        gate.open()
        heard, rest = fresh.rest(), resumed.rest()
    told = [kind for kind in heard.kinds if kind != "message_replace"]
    if kept:
        assert heard.answer == before.answer + " The end. Really."
        assert (told, rest.kinds) == (["message", "message", "message_end"],) * 2
        assert before.frames + rest.frames == [*before.frames, *heard.frames[1:]]
        assert fleet.rows(task_id).message.answer == heard.answer
    else:
        assert heard.last["code"] == "turn_interrupted"
        assert heard.answer == before.answer == fleet.rows(task_id).message.answer
    assert fake.posts == 1


def run_id_of(fleet: Fleet, task_id: str) -> str:
    run_id = fleet.rows(task_id).turn.run_id
    assert run_id is not None
    return run_id


def _live(*servers: GatewayServer) -> list[LiveTurn]:
    """The turns that these gateways drive or follow."""
    return [
        live for server in servers for live in server.gateway.live.running() + server.gateway.live.followed()
    ]


def _saved_position(fleet: Fleet, task_id: str) -> int | None:
    checkpoint = fleet.rows(task_id).turn.checkpoint
    return Fold.load(checkpoint).position if checkpoint else None


@pytest.mark.parametrize("version", FOLD_VERSIONS)
def test_an_adopted_turn_uses_the_fold_it_began_with(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, version: int
) -> None:
    """By the fold of the release before, too: with half of a character held back, or told as lost (R17)."""
    one, two, three = fleet.start(), fleet.start(), fleet.start()
    fake.script = script(said("half \ud83d"), gate, said("\ude00 done"), succeed())
    task_id = fleet.chat(one, user).background()["task_id"]
    wait_until(lambda: fleet.rows(task_id).turn.run_id)
    fleet.change(task_id, fold_version=version)
    die(one)
    chat, other = fleet.chat(two, user), fleet.chat(three, user)
    wait_until(lambda: drives(two, task_id) or drives(three, task_id))
    with chat.follow(task_id) as stream, other.follow(task_id) as also:
        assert stream.next()["answer"] == also.next()["answer"]
        gate.open()
        heard, again = stream.rest(), also.rest()
    told = {3: ["half ", "\U0001f600 done"], 2: ["half \ufffd", "\ufffd done"]}[version]
    assert [event["answer"] for event in heard.events[:-1]] == told
    assert heard.frames == again.frames
    for cursor in range(heard.ids[-1]):
        assert chat.resumed(task_id, after=cursor).frames == heard.after(cursor)
    assert fleet.rows(task_id).message.answer == "".join(told)


def test_a_checkpoint_contains_a_held_half_character(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """The log was trimmed up to the half: the process that continues from the checkpoint still has it."""
    fleet.limits = Limits(maintenance=MaintenanceIntervals(checkpoint_seconds=0.1))
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("So"), delta(" half \ud83d"), gate, delta("\ude00 done"), succeed())
    with fleet.chat(one, user).open(params={"ids": 1}) as stream:
        stream.until("half ")
        task_id = stream.task_id
        wait_until(lambda: _saved_position(fleet, task_id) == 2)
        fake.trim(run_id_of(fleet, task_id), 2)
        die(one)
    with fleet.chat(two, user).follow(task_id) as after:
        adopted(two, task_id)
        gate.open()
        heard = after.rest()
    assert heard.kinds[0] == "message_replace"
    assert heard.answer == "So half \U0001f600 done" == fleet.rows(task_id).message.answer


def test_a_reader_can_be_ahead_of_the_process_it_resumes_at(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """That process has yet to read what the reader has seen: it says nothing twice."""
    one, two = fleet.start(), fleet.start(backend_reconnect_seconds=10.0)
    fake.script = script(*STORY, gate, delta(" The end."), succeed())
    with fleet.chat(one, user).open(params={"ids": 1}) as stream:
        seen = stream.until("!")[-1]["event_id"]
        fake.broken_streams = 3
        with fleet.chat(two, user).follow(stream.task_id, after=seen) as ahead:
            fake.wait_until(lambda: fake.broken_streams == 0)
            gate.open()
            rest = ahead.rest()
        assert rest.frames == stream.rest().after(seen)


def test_a_reader_ahead_of_the_stored_turn_gets_the_stored_end(
    fleet: Fleet, fake: ScriptedBackend, user: str
) -> None:
    """The log is gone with the process: the text of whoever saw more shrinks to what is stored (R1)."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("So ", "far"), Gate(), succeed())
    with fleet.chat(one, user).open(params={"ids": 1}) as stream:
        stream.until("far")
        fake.forget(run_id_of(fleet, stream.task_id))
        die(one)
        before = stream.rest()
    heard = fleet.chat(two, user).resumed(before.task_id, after=before.ids[-1])
    assert (heard.kinds, heard.ids) == (["message_replace", "error"], [GATEWAY_REPLACE, GATEWAY_END])
    assert (heard.answer, heard.last["code"]) == ("", "turn_interrupted")


def test_a_turn_adopted_by_a_late_commit_is_driven(
    fleet: Fleet, fake: ScriptedBackend, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep had given up waiting when the answer of its commit came."""
    one, lease = fleet.start(lease_seconds=3.0), 3.0
    adopt, late = OwnedTurns.adopt, threading.Event()

    async def slow(self: OwnedTurns, **how: bool) -> list[Turn]:
        turns = await adopt(self, **how)
        if turns:
            await asyncio.sleep(lease * 0.6)
            late.set()
        return turns

    monkeypatch.setattr(OwnedTurns, "adopt", slow)
    task_id = begun(one, user, "Hello")
    fleet.change(task_id, owner=None)
    assert fleet.chat(one, user).resumed(task_id).answer == "You said: Hello."
    assert late.is_set()
    assert fake.posts == 1


def test_a_new_process_adopts_only_turns_without_an_owner(fleet: Fleet, user: str) -> None:
    """After an outage a lease may have expired because nobody could renew it: its owner gets time (R11)."""
    one = fleet.start()
    die(one)
    free, expired = begun(one, user, "Free"), begun(one, user, "Expired")
    fleet.change(free, owner=None, lease_until=None)
    fleet.change(expired, lease_until=now_plus(-1))
    two = fleet.start(lease_seconds=60.0)
    # The sweep that adopts this one has seen the other one, too.
    assert fleet.chat(two, user).resumed(free).answer == "You said: Free."
    turn = fleet.rows(expired).turn
    assert (turn.state, turn.epoch, turn.adoptions) == ("planned", 1, 0)


def test_a_process_with_failing_heartbeats_adopts_nothing(
    fleet: Fleet, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases that have expired may be its own, although the database answers its sweep (R11)."""
    sweep, heartbeat = maintenance.Maintenance.sweep, OwnedTurns.heartbeat
    sweeps, failed = threading.Semaphore(0), threading.Event()
    servers: list[GatewayServer] = []

    async def counted(self: maintenance.Maintenance) -> None:
        await sweep(self)
        # Not those of other servers in this process.
        if any(self is one.gateway.maintenance for one in servers):
            sweeps.release()

    async def fails(_self: OwnedTurns, _held: Iterable[Turn]) -> dict[TaskId, bool]:
        failed.set()
        raise StoreUnavailable("no heartbeat gets through")

    monkeypatch.setattr(maintenance.Maintenance, "sweep", counted)
    one = fleet.start()
    servers.append(one)
    monkeypatch.setattr(OwnedTurns, "heartbeat", fails)
    assert failed.wait(BOUND)
    task_id = begun(one, user, "Free")
    fleet.change(task_id, owner=None, lease_until=None)
    while sweeps.acquire(blocking=False):
        pass
    for _ in range(3):
        assert sweeps.acquire(timeout=BOUND)
    turn = fleet.rows(task_id).turn
    assert (turn.state, turn.owner, turn.epoch) == ("planned", None, 1)
    monkeypatch.setattr(OwnedTurns, "heartbeat", heartbeat)
    assert fleet.chat(one, user).resumed(task_id).answer == "You said: Free."


def test_a_run_stored_by_a_commit_with_a_lost_answer_is_not_cancelled(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of its id was not answered, and then the turn was lost: the next owner needs it (R14)."""
    running, lost = OwnedTurns.mark_running, threading.Event()

    async def loses_its_answer(self: OwnedTurns, turn: Turn, run_id: RunId) -> bool | None:
        told = await running(self, turn, run_id)
        if not lost.is_set():
            await self.release([(turn, None)])
            lost.set()
            raise StoreUnavailable("the answer was lost")
        return told

    monkeypatch.setattr(OwnedTurns, "mark_running", loses_its_answer)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    one = fleet.start()
    with fleet.chat(one, user).open() as stream:
        assert lost.wait(BOUND)
        stream.until("So far")
        gate.open()
        assert stream.rest().answer == "So far, so good"
    assert (fake.posts, fake.cancels) == (1, [])
    assert fleet.rows(stream.task_id).turn.outcome == "completed"


def test_an_owner_that_cannot_write_sends_the_end_that_another_process_stored(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can still read: its readers get the end from the row (R7)."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("So far"), gate, succeed())

    def unless_one(write: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def refused_to_one(owned: OwnedTurns, *what: Any) -> Any:
            if owned is one.gateway.turns.owned:
                raise StoreUnavailable("it cannot write")
            return await write(owned, *what)

        return refused_to_one

    with fleet.chat(one, user).open() as stream:
        stream.until("So far")
        for name in ("heartbeat", "finish"):
            monkeypatch.setattr(OwnedTurns, name, unless_one(getattr(OwnedTurns, name)))
        gate.open()
        assert stream.rest().kinds == ["message", "message_end"]
    adopted_once = fleet.rows(stream.task_id).turn
    assert (adopted_once.outcome, adopted_once.epoch, adopted_once.adoptions) == ("completed", 2, 1)
    assert fleet.chat(two, user).resumed(stream.task_id).answer == "So far"


@pytest.mark.slow
def test_a_database_outage_causes_no_mass_adoption(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """All leases run out while nobody can renew them: every turn stays with its owner (R11)."""
    # Long enough that a busy machine is no dead process: both have to renew within a lease afterwards.
    lease_seconds = 3 * LEASE_SECONDS
    one, two = fleet.start(lease_seconds=lease_seconds), fleet.start(lease_seconds=lease_seconds)
    fake.script = script(said("So far"), gate, succeed())
    chats = [fleet.chat(one, user), fleet.chat(two, user)]
    turns = [chat.background()["task_id"] for chat in chats * 3]
    fake.wait_until(lambda: fake.open_streams == 6)
    _lock_turns_for(fleet, 2 * lease_seconds)
    wait_until(lambda: not _expired(fleet))
    gate.open()
    for task_id in turns:
        assert chats[0].resumed(task_id).last["event"] == "message_end"
        assert (fleet.rows(task_id).turn.epoch, fleet.rows(task_id).turn.adoptions) == (1, 0)


def _lock_turns_for(fleet: Fleet, seconds: float) -> None:
    """Neither heartbeats nor sweeps get through for a while."""

    async def work(session: AsyncSession) -> None:
        await session.execute(sql("LOCK TABLE turns IN ACCESS EXCLUSIVE MODE"))
        await asyncio.sleep(seconds)

    look(fleet.database_url, work)


def _expired(fleet: Fleet) -> bool:
    async def work(session: AsyncSession) -> bool:
        late = select(col(TurnRow.id)).where(
            col(TurnRow.state) != "ended", col(TurnRow.lease_until) < func.clock_timestamp()
        )
        return (await session.execute(late)).first() is not None

    return look(fleet.database_url, work)
