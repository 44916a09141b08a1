"""The turn's state machine against a small model of it: any events in any order, on both databases.

Three processes begin, arm, run, finish, release and adopt turns of two conversations, with handles that
may long be stale; leases run out, callers stop. After each step every row is what the model says.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import select, update

from agent_gateway.apps.policy import MAX_QUEUED
from agent_gateway.domain.events import GATEWAY_END, Endings, Result
from agent_gateway.domain.ids import ConversationId, RunId, new_id
from agent_gateway.domain.turns import App, Caller, Outcome, Turn, TurnRequest
from agent_gateway.errors import ConversationBusy
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.tables import messages, snapshots, turns
from agent_gateway.store.turns.intake import StartedTurn
from agent_gateway.store.turns.stores import TurnStores
from tests.support.properties import examples
from tests.support.store_world import World, ask, completed

T = TypeVar("T")

ACTIVE = ("planned", "sending", "running")
PROCESSES = st.integers(0, 2)
CONVERSATIONS = st.integers(0, 1)


@dataclass
class Expected:
    """What a turn's row must say."""

    conversation: str
    seq: int
    state: str
    owner: str | None
    epoch: int = 1
    adoptions: int = 0
    stop: bool = False
    run_id: str | None = None
    outcome: str | None = None
    expired: bool = False
    """Its lease has run out, and nobody has noticed yet."""


@dataclass(frozen=True)
class Handle:
    """A turn as a process had it once."""

    process: int
    turn: Turn


class Machine(RuleBasedStateMachine):
    """`world`, `runner` and `callers` are given by the test."""

    world: World
    runner: asyncio.Runner
    callers: list[Caller]
    """Of an app whose messages wait, and of one whose messages interrupt."""

    handles: Bundle[Handle] = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.owners = [new_id() for _ in range(3)]
        self.processes: list[TurnStores] = [self.world.process(owner) for owner in self.owners]
        self.conversations: list[str] = []
        self.expected: dict[str, Expected] = {}
        self.ended: dict[str, Any] = {}
        self.snapshot_seq: dict[str, int] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def active(self, conversation: str) -> Expected | None:
        found = [turn for turn in self.of(conversation) if turn.state in ACTIVE]
        return found[0] if found else None

    def of(self, conversation: str) -> list[Expected]:
        return [turn for turn in self.expected.values() if turn.conversation == conversation]

    def is_ours(self, handle: Handle, *states: str) -> bool:
        turn = self.expected[handle.turn.task_id]
        ours = (turn.owner, turn.epoch) == (self.owners[handle.process], handle.turn.epoch)
        return ours and turn.state in states

    def end(self, turn: Expected, outcome: Outcome) -> None:
        turn.state, turn.outcome, turn.expired = "ended", outcome.value, False
        waiting = [other for other in self.of(turn.conversation) if other.state == "queued"]
        if waiting and not self.active(turn.conversation):
            promoted = min(waiting, key=lambda other: other.seq)
            promoted.state, promoted.owner, promoted.epoch = "planned", None, promoted.epoch + 1

    # -- rules -------------------------------------------------------------------------------------

    @initialize(target=handles)
    def first_turns(self) -> Any:
        return multiple(*(self._begin(0, number, None) for number in range(2)))

    @rule(target=handles, process=PROCESSES, number=CONVERSATIONS)
    def begin(self, process: int, number: int) -> Any:
        conversation = self.conversations[number]
        active = self.active(conversation)
        waiting = [turn for turn in self.of(conversation) if turn.state == "queued"]
        if active and number == 0 and len(waiting) >= MAX_QUEUED:
            with pytest.raises(ConversationBusy):
                self._post(process, number, conversation)
            return multiple()
        if active and number == 1:
            active.stop = True
            for turn in waiting:
                turn.stop = True
                self.end(turn, Outcome.STOPPED)
        return self._begin(process, number, conversation)

    def _begin(self, process: int, number: int, conversation: str | None) -> Handle:
        begun = self._post(process, number, conversation)
        turn = begun.turn
        if conversation is None:
            self.conversations.append(turn.conversation_id)
        queued = self.active(turn.conversation_id) is not None
        seq = len(self.of(turn.conversation_id)) + 1
        assert turn.state == ("queued" if queued else "planned")
        self.expected[turn.task_id] = Expected(
            turn.conversation_id, seq, turn.state, None if queued else self.owners[process]
        )
        return Handle(process, turn)

    def _post(self, process: int, number: int, conversation: str | None) -> StartedTurn:
        request: TurnRequest = ask(ConversationId(conversation) if conversation else None)
        begun = self.do(self.processes[process].intake.begin(self.callers[number], request))
        assert isinstance(begun, StartedTurn)
        return begun

    @rule(handle=handles)
    def arm(self, handle: Handle) -> None:
        turn = self.expected[handle.turn.task_id]
        allowed = self.is_ours(handle, "planned", "sending") and not turn.stop
        assert self.do(self.processes[handle.process].owned.arm(handle.turn)) == allowed
        if allowed:
            turn.state = "sending"

    @rule(handle=handles)
    def run_is_known(self, handle: Handle) -> None:
        turn = self.expected[handle.turn.task_id]
        run_id = RunId(f"run of {handle.turn.task_id}")
        told = self.do(self.processes[handle.process].owned.mark_running(handle.turn, run_id))
        if self.is_ours(handle, "sending", "running"):
            assert told == turn.stop
            turn.state, turn.run_id = "running", run_id
        else:
            assert told is None

    @rule(handle=handles, with_snapshot=st.booleans(), twice=st.booleans())
    def finish(self, handle: Handle, *, with_snapshot: bool, twice: bool) -> None:
        """By its owner, or by whoever still takes itself for it; the second time nothing happens."""
        turn = self.expected[handle.turn.task_id]
        allowed, asked = self.is_ours(handle, *ACTIVE), turn.stop

        normal = completed(snapshot=f'{{"seq": {turn.seq}}}' if with_snapshot else None)
        endings = Endings(normal, Result(Outcome.STOPPED, (), (), GATEWAY_END))
        stored = self.do(self.processes[handle.process].owned.finish(handle.turn, endings))
        assert (stored is not None) == allowed
        if stored is not None:
            assert (stored.outcome is Outcome.STOPPED) == asked
            self.end(turn, stored.outcome)
            if stored.snapshot:
                self.snapshot_seq[turn.conversation] = turn.seq
        if twice:
            assert self.do(self.processes[handle.process].owned.finish(handle.turn, endings)) is None

    @rule(handle=handles)
    def stop(self, handle: Handle) -> None:
        turn = self.expected[handle.turn.task_id]
        caller = self.callers[self.conversations.index(turn.conversation)]
        stopped = self.do(self.processes[handle.process].intake.stop(caller, handle.turn.task_id))
        if turn.state == "ended":
            assert stopped is None
            return
        assert stopped is not None
        assert stopped.run_id == turn.run_id
        turn.stop = True
        if turn.state in ("queued", "planned"):
            self.end(turn, Outcome.STOPPED)

    @rule(handle=handles)
    def a_stranger_stops(self, handle: Handle) -> None:
        turn = self.expected[handle.turn.task_id]
        other = self.callers[1 - self.conversations.index(turn.conversation)]
        assert self.do(self.processes[handle.process].intake.stop(other, handle.turn.task_id)) is None

    @rule(handle=handles)
    def release(self, handle: Handle) -> None:
        allowed = self.is_ours(handle, "planned", "running")
        released = self.do(self.processes[handle.process].owned.release([(handle.turn, b"state")]))
        assert released == ({handle.turn.task_id} if allowed else set())
        if allowed:
            turn = self.expected[handle.turn.task_id]
            turn.owner, turn.epoch, turn.expired = None, turn.epoch + 1, False

    @rule(handle=handles)
    def expire(self, handle: Handle) -> None:
        """Nobody has renewed the lease for long."""
        turn = self.expected[handle.turn.task_id]
        if turn.state in ACTIVE and turn.owner is not None:
            self.do(self.world.expire(handle.turn))
            turn.expired = True

    @rule(target=handles, process=PROCESSES, expired=st.booleans())
    def adopt(self, process: int, *, expired: bool) -> Any:
        adopted = self.do(self.processes[process].owned.adopt(expired=expired))
        free = {
            task_id
            for task_id, turn in self.expected.items()
            if turn.state in ACTIVE and (turn.owner is None or (expired and turn.expired))
        }
        assert {turn.task_id for turn in adopted} == free
        for task_id in free:
            turn = self.expected[task_id]
            turn.adoptions += turn.owner not in (None, self.owners[process])
            turn.owner, turn.epoch, turn.expired = self.owners[process], turn.epoch + 1, False
        for turn in adopted:
            row = self.expected[turn.task_id]
            assert (turn.epoch, turn.state, turn.run_id) == (row.epoch, row.state, row.run_id)
            assert (turn.stop_asked, turn.runnable) == (row.stop, row.adoptions < 5)
            seen = self.snapshot_seq.get(row.conversation)
            assert turn.snapshot == (None if seen is None else f'{{"seq": {seen}}}')
        return multiple(*(Handle(process, turn) for turn in adopted))

    @rule(some=st.lists(handles, max_size=4))
    def heartbeat(self, some: list[Handle]) -> None:
        for process in range(3):
            held = [handle for handle in some if handle.process == process]
            renewed = self.do(self.processes[process].owned.heartbeat([handle.turn for handle in held]))
            ours = {handle.turn.task_id for handle in held if self.is_ours(handle, *ACTIVE)}
            assert renewed == {task_id: self.expected[task_id].stop for task_id in ours}
            for task_id in ours:
                self.expected[task_id].expired = False

    @precondition(lambda self: any(turn.state == "ended" for turn in self.expected.values()))
    @rule(handle=handles)
    def an_ended_turn_is_read(self, handle: Handle) -> None:
        result = self.do(self.processes[handle.process].reader.result(handle.turn.task_id))
        outcome = self.expected[handle.turn.task_id].outcome
        assert (result.outcome.value if result else None) == outcome

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def every_row_is_what_it_must_be(self) -> None:
        for row in self.do(_rows(self.world, self.conversations)):
            turn = self.expected[row.id]
            found = (row.seq, row.state, row.epoch, row.adoptions, row.run_id, row.outcome)
            must = (turn.seq, turn.state, turn.epoch, turn.adoptions, turn.run_id, turn.outcome)
            assert found == must
            assert (row.stop_at is not None) == turn.stop
            if row.state == "ended":
                assert row.outcome is not None
                assert row.end_position is not None
                assert tuple(row) == self.ended.setdefault(row.id, tuple(row)), "an ended turn has changed"
            else:
                assert row.owner == turn.owner

    @invariant()
    def conversations_are_in_order(self) -> None:
        for conversation in self.conversations:
            row = self.do(_snapshot_seq(self.world, conversation))
            assert row == self.snapshot_seq.get(conversation)
            begun = sorted(self.of(conversation), key=lambda turn: turn.seq)
            assert sum(turn.state in ACTIVE for turn in begun) <= 1
            started = [turn.seq for turn in begun if turn.state in ACTIVE]
            waiting = [turn.seq for turn in begun if turn.state == "queued"]
            assert not waiting or (started and started[0] < waiting[0])

    def teardown(self) -> None:
        # The next example's processes must find nothing of this one's.
        ended = {"state": "ended", "outcome": "failed", "end_position": GATEWAY_END}
        self.do(self.world.execute(update(turns).where(turns.c.state != "ended").values(ended)))


async def _rows(world: World, conversations: list[str]) -> list[Any]:
    async with world.database.reading() as session:
        found = await session.execute(
            select(turns, messages.c.answer, messages.c.marks)
            .join(messages, messages.c.id == turns.c.message_id)
            .where(turns.c.conversation_id.in_(conversations))
        )
        return list(found)


async def _snapshot_seq(world: World, conversation: str) -> int | None:
    async with world.database.reading() as session:
        seq = select(snapshots.c.seq).where(snapshots.c.conversation_id == conversation)
        return (await session.execute(seq)).scalar()


@contextmanager
def on(database_url: str) -> Generator[type[Machine]]:
    """The machine on this database."""

    async def opened() -> tuple[Database, World]:
        database = Database(database_url)
        return database, await World.make(database)

    with asyncio.Runner() as runner:
        database, world = runner.run(opened())
        callers = [
            Caller(App(app.id, app.version_id, app.config.model_copy(update={"on_busy": policy})), "ann")
            for app, policy in ((world.app, "enqueue"), (world.other_app, "interrupt"))
        ]
        given = {"world": world, "runner": runner, "callers": callers}
        yield type("Machine", (Machine,), given)
        runner.run(database.close())


@pytest.mark.slow
def test_the_store_agrees_with_the_model_for_any_order_of_events(database_url: str) -> None:
    with on(database_url) as machine:
        run_machine(
            machine,
            settings=settings(
                examples(30),
                stateful_step_count=40,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
