"""One turn: create the run, fold its events, commit the result, then emit it.

A runner either owns its turn or follows it. Both fold the same run into the same log. Only the owner creates
the run, watches the bounds and commits the result. A runner can change sides at any time, and its readers
stay. Exactly one result is committed, here or by another process, and the terminal event is rendered from it
(I2, I3, R2).

              adopt: ours now, under a new epoch;
              a read of the run goes on
     following ──────────────────────────────────▶ driving ◀─┐ adopt: a newer epoch,
         │ ▲                                          │ │ └───┘ start over
         │ ├───────────── demote ─────────────────────┘ │
         │ │                                            │ the run has ended, or an Interruption:
         │ │                                            ▼ DEADLINE, IDLE, STOP_GRACE, SHUTDOWN
         │ └───────────── demote ─────────────────── ending   (ending.py: final read, files, commit)
         │                                              │
         │ the row says how the turn ended              │ committed
         └─────────────────▶ ended ◀────────────────────┘     `result` is set, its events are emitted
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
from structlog.contextvars import bind_contextvars, unbind_contextvars

from agent_gateway import metrics, tracing, turn_span
from agent_gateway.backend.compose import compose, files_to_read
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.backend.run_handle import RunHandle, cancel_quietly
from agent_gateway.bounds import Bounds, Interruption, interrupted
from agent_gateway.causes import Failure
from agent_gateway.domain.events import GATEWAY_END, Result, TurnEvent
from agent_gateway.domain.files import artifact_id
from agent_gateway.domain.ids import FileId, RunId
from agent_gateway.domain.turns import Outcome, Turn, TurnState
from agent_gateway.ending import Ending, end_turn, failure_of
from agent_gateway.errors import NotFound, RunGap
from agent_gateway.run_folding import Folding
from agent_gateway.trace_context import bind_trace
from agent_gateway.turn_resources import Resources
from agent_gateway.turn_times import TurnTimes

if TYPE_CHECKING:
    from agent_gateway.spans import Span


class TurnRunner:
    """Drives or follows one turn. `run` once; everything else any time."""

    def __init__(
        self,
        turn: Turn,
        *,
        owned: bool,
        resources: Resources,
        emit: Callable[[Sequence[TurnEvent]], None],
        span: "Span | None" = None,
    ) -> None:
        """`span` is that of a turn that has just begun here, if it is traced."""
        self.turn = turn
        self.owned = owned
        self.run_id = turn.run_id
        self.result: Result | None = None
        """What was stored, once the turn has ended."""
        self._resources = resources
        self._backend = resources.backend
        self._store = resources.store
        self.times = TurnTimes(turn, resources.clock, is_new=owned and turn.taken is None)
        self._span, self._left_as = span, turn_span.QUEUED
        """The span while this process has the turn; its outcome if this process stores no end of the turn."""
        self._folding = Folding(resources.backend, turn, emit, self.times.heard)
        self._bounds = Bounds(resources.limits, resources.idle_seconds)
        self._deadline = asyncio.get_running_loop().time() + turn.seconds_left
        self._created: RunHandle | None = None
        """The run whose creation has begun, until its id is stored."""
        self._changed = asyncio.Event()
        """Ownership, the row or the run's id may have changed."""
        self._saw_run_end = False
        self._is_gone = False
        """True once its rows were removed, with its conversation."""
        self._made: list[FileId] = []
        """The files that its agent made."""
        self._is_storing = False
        """True while the end of the turn is on its way into the store."""
        self.stored_end = False
        """True once this process has stored how the turn ended."""
        if owned:
            self._drives(turn)

    async def run(self) -> None:
        """Drive or follow the turn to its one end. Raises only when cancelled."""
        # This task is the turn's own: all that is logged in it says so, in every process that has the turn.
        unbind_contextvars("request_id")
        bind_contextvars(task_id=self.turn.task_id)
        trace = self.turn.trace
        if trace.request_id:
            bind_contextvars(request_id=trace.request_id)
        while self.result is None:
            bind_trace(trace.request_id, trace.parent if self._span is None else self._span.traceparent)
            self._bounds.start_over()
            self._folding.begin(self.turn)
            if self.owned:
                await self._drive()
            else:
                await self._follow()

    @property
    def position(self) -> int:
        """Position of the last event of the run that was folded."""
        return self._folding.fold.position

    @property
    def ending(self) -> bool:
        """True when it is decided how the turn ends, and that is being stored."""
        return self._folding.run_has_ended or not self._bounds.is_working

    @property
    def sending(self) -> bool:
        """True between arming the row and knowing the run's id: no moment to hand over (R4)."""
        return self._bounds.sending

    @property
    def stopping(self) -> bool:
        """True once this runner knows that a stop was asked for."""
        return self._bounds.stopping

    @property
    def past_lost_at(self) -> int:
        """Position of the last event that was lost and replaced by the whole text; 0 when none was."""
        return self._folding.past_lost_at

    def checkpoint(self) -> bytes | None:
        """The fold's whole state, or None when there is nothing new to store (R5)."""
        return self._folding.checkpoint()

    def checkpointed(self) -> None:
        """The checkpoint that was taken last is stored."""
        self._folding.checkpointed()

    # -- what happens to a turn from outside ------------------------------------------------------

    def stop(self) -> None:
        """A caller asked to stop and the store knows: give the run a moment to say how it ended."""
        self.times.stopping()
        self._bounds.stop()

    def interrupt(self) -> None:
        """The process has to go and no other can take over: end the turn as interrupted, now."""
        self._bounds.cut(Interruption.SHUTDOWN)

    def adopt(self, turn: Turn) -> None:
        """The turn is ours now, under a new epoch.

        If we follow its run already, the same stream goes on: when a process dies, the backend sees one
        further stream for each of its turns. A stream that has been silent for long may be a dead connection.
        """
        plain = turn.runnable and not turn.stop_asked and turn.run_id == self.run_id
        alive = self._folding.is_reading and self._bounds.heard_within(
            self._resources.limits.trusted_stream_seconds
        )
        goes_on = not self.owned and plain and alive
        self.turn, self.owned = turn, True
        self._drives(turn)
        self.run_id = turn.run_id or self.run_id
        self._deadline = asyncio.get_running_loop().time() + turn.seconds_left
        if goes_on:
            self._bounds.apply(self._deadline)
        else:
            self._restart()

    def demote(self, *, released: bool = False) -> None:
        """The turn is no longer ours: follow it. A write of ours would change nothing (I9).

        `released`: this process has given it up.
        """
        if self.owned:
            if released:
                self._left_as = turn_span.RELEASED
            # An end that is being stored may have been stored already: then this process tells it.
            if not self._is_storing:
                self.leave_span()
            self.owned = False
            self._restart()

    def on_status(self, run_id: RunId | None, *, ended: bool) -> None:
        """The row of a turn that we follow says this now."""
        if self.owned or self.result is not None:
            return
        if self.run_id is None and run_id is not None:
            self.run_id = run_id
            self._changed.set()
        if ended:
            self._restart()

    def recheck(self) -> None:
        """The row of a turn that we follow may have changed: read it now."""
        if not self.owned:
            self._restart()

    def begun_with(self, span: "Span", *, queued: bool) -> None:
        """The span with which this turn was begun here, where it was seen before its begin had returned.

        `queued`: it waits behind another turn.
        """
        if self._span is None and self.result is None:
            self._span = span
        else:
            self._leave(span, turn_span.QUEUED if queued else turn_span.LOST)

    def take_span(self) -> "Span | None":
        """The span of the turn, if there is one, to be ended: no other caller gets it."""
        span, self._span = self._span, None
        return span

    def leave_span(self) -> None:
        """End the span of the turn, if there is one: this process stores no end of it."""
        if (span := self.take_span()) is not None:
            self._leave(span, self._left_as)

    def _leave(self, span: "Span", outcome: str) -> None:
        result = self.result
        if outcome == turn_span.QUEUED and self.run_id is None and result is not None:
            # It has never left its queue: no other process tells its end.
            outcome = result.outcome.value
        turn_span.leave(span, self.turn, self.run_id, outcome)

    def _drives(self, turn: Turn) -> None:
        """This process drives the turn from now on. One that was begun elsewhere gets a span here."""
        self.times.driven(turn)
        self._left_as = turn_span.LOST
        if tracing.tracer is not None and self._span is None:
            self._span = turn_span.adopt(tracing.tracer, turn)

    def _restart(self) -> None:
        """Cut the work that is under way, and start over from what is known now."""
        self._changed.set()
        self._bounds.cut(Interruption.OWNERSHIP)

    async def _drive(self) -> None:
        if self.turn.stop_asked:
            self.stop()
        await self._end(await self._work(self._do_run, self._deadline))

    async def _end(self, failure: Failure | None) -> None:
        """Store how the turn ended; `failure` is what went wrong. Not if its work was cut to start over."""
        cut_to_restart = self._bounds.why is Interruption.OWNERSHIP and not self._folding.run_has_ended
        if not self.owned or cut_to_restart:
            return
        turn = self.turn
        ending = Ending(turn, self.run_id, failure, lambda: self.owned and self.turn is turn, self._changed)
        self._is_storing = True
        try:
            result = await end_turn(self._resources, ending, self._folding)
        finally:
            self._is_storing = False
        if result is not None:
            self.stored_end = True
            self._emit_result(result)
        else:
            metrics.FENCED("finish").inc()
            if self.turn.epoch == turn.epoch:
                self.leave_span()
                self.owned = False

    async def _do_run(self) -> Failure | None:
        if not self.turn.runnable:
            self._folding.restore(self.turn)
            return interrupted("NotRunnable", "its processes died too often, or it needs another release")
        if self.run_id is None:
            if self.turn.state is TurnState.SENDING:
                # The process that armed it may have created a run that nobody knows: never a second (R4).
                return interrupted("RunUnknown", "its process died before it knew the id of the run")
            if not await self._create_run():
                return None
        if self.stopping and self.run_id is not None:
            await cancel_quietly(self._backend, self.run_id, self._resources.limits.cancel_seconds)
        await self._fold_run()
        return None

    async def _create_run(self) -> bool:
        request = await self._request()
        with self._bounds.sending_run():
            if not await self._store.owner_retried(lambda: self._store.owned.arm(self.turn)):
                metrics.FENCED("arm").inc()
                return False
            self.times.sent()
            self._created = RunHandle(self._backend, self._resources.limits.cancel_seconds)
            run_id = await self._created.create(request)
            stop_asked = await self._store.retried(lambda: self._store.owned.mark_running(self.turn, run_id))
            if stop_asked is None:
                metrics.FENCED("running").inc()
                # Not ours any longer. The run is nobody's, unless a write that stored it lost its answer.
                stored = await self._store.retried(lambda: self._store.reader.load(self.turn.task_id))
                if stored is None or stored.run_id != run_id:
                    await self._cancel_for_good(run_id)
                return False
        self.run_id, self._created = run_id, None
        if stop_asked:
            self.stop()
        return True

    async def _request(self) -> CreateRunRequest:
        """What runs the turn, with the bytes of its files that a model is to see."""
        turn, resources = self.turn, self._resources
        takes_files = bool(turn.files) and await self._backend.takes_files()
        wanted = files_to_read(turn, takes_files=takes_files)
        contents = await resources.files.read_contents(wanted, resources.limits.read_files_seconds)
        return compose(turn, resources.environ, resources.file_url, contents, takes_files=takes_files)

    # -- after the end ----------------------------------------------------------------------------

    def release_memory(self) -> None:
        """Let go of what only a running turn needs; its log and result stay for late readers."""
        self.turn = msgspec.structs.replace(
            self.turn, query="", inputs={}, files=[], snapshot=None, checkpoint=None
        )
        if self.result is not None and self.result.snapshot is not None:
            self.result = replace(self.result, snapshot=None)
        self._saw_run_end = self._folding.run_has_ended
        self._made = [artifact_id(self.turn.message_id, made.number) for made in self._folding.fold.files]
        self._folding.release_memory()

    async def clean_up(self) -> None:
        """After `release_memory`: cancel a run that we ended the turn of without having seen the run's end.

        The process that ended the turn tries first, being the only one that can when the run is held in its
        memory; the outbox tries again (R8). Of a turn whose rows are gone, no file stays either (R18).
        """
        if (self.owned or self._is_gone) and self.result is not None and not self._saw_run_end:
            if self.run_id is None and self._created is not None:
                self.run_id = await self._created.abandon()
            if self.run_id is not None:
                await self._cancel_for_good(self.run_id)
        if self._is_gone:
            await self._resources.files.discard_artifacts(self.turn.created_at, self._made)

    async def _cancel_for_good(self, run_id: RunId) -> None:
        done = await cancel_quietly(self._backend, run_id, self._resources.limits.cancel_seconds)
        await self._store.outbox.cancel_tried(self.turn, run_id, done=done)

    # -- following --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Emit what the run says, then what the row says; until it has ended or the turn is ours."""
        reads, watching = 0, self.turn.runnable
        while not self.owned:
            self._bounds.start_over()
            # Before the row is read: a change that comes meanwhile must end the wait below.
            self._changed.clear()
            try:
                result = await self._store.retried(lambda: self._store.reader.result(self.turn.task_id))
            except NotFound:
                # Its conversation was removed: no other end will ever be stored (R18).
                self._is_gone = True
                result = Result(Outcome.STOPPED, (), (), GATEWAY_END)
            if result is not None:
                self._emit_result(result)
                return
            if watching and not self._folding.run_has_ended:
                failed = await self._work(self._watch_run, None)
                reached = self._bounds.why not in {None, Interruption.OWNERSHIP}
                if self.owned and (self._folding.run_has_ended or reached):
                    # Adopted while it was read. If the read failed by itself, the owner tries again.
                    await self._end(failed)
                    return
                watching = failed is None or self._bounds.why is Interruption.OWNERSHIP
                continue
            # The end is usually committed within moments of the run's. After that the statuses, read once
            # a second for all followed turns together, bring the change.
            longest = self._resources.limits.recheck_seconds
            await self._wait_for_change(min(0.05 * 2 ** min(reads, 10), longest))
            reads += 1

    async def _watch_run(self) -> None:
        while self.run_id is None:
            self._changed.clear()
            await self._wait_for_change(None)
        await self._leave_queue()
        await self._fold_run()

    async def _leave_queue(self) -> None:
        """When a turn leaves the queue, its snapshot is decided, and the form whose answer it carries."""
        if self.turn.state is not TurnState.QUEUED:
            return
        stored = await self._store.retried(lambda: self._store.reader.load(self.turn.task_id))
        if stored is not None and not self.owned:
            self.turn = stored
            self._folding.begin(stored)

    async def _wait_for_change(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _work(
        self, work: Callable[[], Awaitable[Failure | None]], deadline: float | None
    ) -> Failure | None:
        """Do this until it is done or cut; what went wrong, or None."""
        try:
            return await self._bounds.run(work, deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
            return failure_of(error)

    async def _fold_run(self) -> None:
        """Fold the run from where the fold stands until its terminal event."""
        if self._folding.run_has_ended:
            return
        assert self.run_id is not None
        bind_contextvars(run_id=self.run_id)
        try:
            await self._folding.read(self.run_id, self._bounds.heard)
        except RunGap:
            stored = await self._store.retried(lambda: self._store.reader.load(self.turn.task_id))
            if stored is None or stored.checkpoint is None:
                raise
            if not self.owned:
                self.turn = stored
            if not self._folding.restore(stored):
                raise
            await self._folding.read(self.run_id, self._bounds.heard)

    def _emit_result(self, result: Result) -> None:
        self._folding.emit_rest(result)
        self.result = result
