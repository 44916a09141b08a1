"""The live turns of this process: start, follow, adopt, find, stop.

Turns are tasks of one task group that lives as long as the service. A response only reads: it can come and go
and the turn does not notice (I6).
"""

import asyncio
import logging
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agent_gateway import metrics, tracing, turn_span
from agent_gateway.backend.run_handle import cancel_quietly
from agent_gateway.domain.human_input import Submission
from agent_gateway.domain.ids import ConversationId, RunId, TaskId, new_id
from agent_gateway.domain.turns import App, Caller, Outcome, Trace, Turn, TurnRequest, TurnState
from agent_gateway.errors import StoreUnavailable, Unavailable
from agent_gateway.limits import DrainLimits, RegistryLimits
from agent_gateway.runner import TurnRunner
from agent_gateway.store.turns.intake import NOT_BEGUN, Repeated
from agent_gateway.store.turns.stopping import Stopped
from agent_gateway.turn_resources import Resources
from agent_gateway.turns.drain import Drain
from agent_gateway.turns.end_report import report_end
from agent_gateway.turns.ended_turns import EndedTurns
from agent_gateway.turns.file_descriptors import require_descriptors
from agent_gateway.turns.live_turn import LiveTurn
from agent_gateway.turns.log import EventLog

if TYPE_CHECKING:
    from agent_gateway.spans import Span

logger = logging.getLogger(__name__)


class LiveTurns:
    """All live turns; an async context manager whose exit drains and ends what is left."""

    def __init__(
        self,
        *,
        resources: Resources,
        most: int,
        shared: bool,
        limits: RegistryLimits,
        drain_limits: DrainLimits,
    ) -> None:
        self._resources = resources
        self._backend = resources.backend
        self._store = resources.store
        self._most = most
        self._limits = limits
        self._beginning = 0
        self._adopting = 0
        self._loading: dict[TaskId, asyncio.Future[Turn | None]] = {}
        self._running: dict[TaskId, LiveTurn] = {}
        self._ended = EndedTurns(limits)
        self._tasks = asyncio.TaskGroup()
        self._started: set[asyncio.Task[Any]] = set()
        self._abandoning: set[asyncio.Task[Any]] = set()
        self._drain = Drain(
            self._running,
            resources,
            drain_limits,
            alone=not shared,
            is_arriving=lambda: bool(self._beginning or self._loading),
            is_adopting=lambda: bool(self._adopting),
        )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._drain.is_over:
            await self.drain(0)
        # The database is away: another process ends these turns when their leases have run out. Or the
        # backend is away: the outbox holds what is still to be done there.
        self.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def _spawn_task(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = self._tasks.create_task(work, name=name)
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        return task

    @property
    def draining(self) -> asyncio.Event:
        """Set when this process begins to leave."""
        return self._drain.begun

    def cancel(self) -> list[asyncio.Task[Any]]:
        """End all work on turns at once, as the death of the process would; returns the tasks."""
        tasks = list(self._started)
        for task in tasks:
            task.cancel()
        return tasks

    async def start(self, caller: Caller, request: TurnRequest) -> LiveTurn | TaskId:
        """Begin a turn and run it, or follow it while it is queued; or the task id of the one that
        its Idempotency-Key made before.

        Raises Unavailable when draining or full, and what `TurnIntake.begin` raises.
        """
        task_id = TaskId(new_id())
        span = None
        if tracing.tracer is not None:
            span, trace = turn_span.begin(tracing.tracer, caller.app, request.trace)
            request = replace(request, trace=trace)
        with self._admitting():
            try:
                begun = await self._store.intake.begin(caller, request, task_id)
            except StoreUnavailable:
                if not request.idempotency_key and len(self._abandoning) < self._limits.max_abandoned:
                    # Its commit may have gone through nevertheless, and the client will ask again (R14).
                    abandoning = self._spawn_task(
                        self._abandon_unacknowledged(caller, task_id), f"abandon-{task_id}"
                    )
                    self._abandoning.add(abandoning)
                    abandoning.add_done_callback(self._abandoning.discard)
                raise
        if isinstance(begun, Repeated):
            return begun.task_id
        for stopped in begun.interrupted:
            self._propagate_stop(stopped)
        live = self._attach(begun.turn, span)
        metrics.TURNS_BEGUN.inc()
        return live

    async def submit(self, app: App, token: str, submission: Submission, trace: Trace) -> LiveTurn:
        """Answer a form, and run the turn that carries the answer, or follow it while it is queued.

        Raises Unavailable when draining or full, and what `TurnIntake.submit` raises. After a commit whose
        answer was lost the form counts as submitted: its turn is adopted when its lease has run out.
        """
        span = None
        if tracing.tracer is not None:
            span, trace = turn_span.begin(tracing.tracer, app, trace)
        with self._admitting():
            turn = await self._store.intake.submit(app.id, token, submission, trace)
        live = self._attach(turn, span)
        metrics.TURNS_BEGUN.inc()
        return live

    def _attach(self, turn: Turn, span: "Span | None") -> LiveTurn:
        """Run a turn that was begun here, or follow it while it is queued."""
        if span is not None:
            turn_span.tell_turn(span, turn)
        owned = turn.state is not TurnState.QUEUED
        live = self.find(turn.task_id)
        if live is None:
            return self._spawn(turn, owned=owned, span=span)
        # Its commit was seen here before it was acknowledged: by a reader, or it was promoted and adopted.
        if span is not None:
            live.runner.begun_with(span, queued=not owned)
        if owned and not live.runner.owned:
            live.runner.adopt(turn)
        return live

    @contextmanager
    def _admitting(self) -> Generator[None]:
        """While a turn is begun here."""
        if self.draining.is_set():
            raise Unavailable("This server is shutting down. Please try again.", retry_after=1)
        if self._is_full():
            raise Unavailable("Too many turns are running. Please try again.", retry_after=5)
        require_descriptors()
        self._beginning += 1
        try:
            yield
        finally:
            self._beginning -= 1

    def _is_full(self) -> bool:
        if len(self._running) + self._beginning < self._most:
            return False
        return len(self.running()) + self._beginning >= self._most

    async def follow(self, task_id: TaskId) -> LiveTurn | None:
        """A turn that another process drives, to be read here: one follower however many readers."""
        if live := self.find(task_id):
            return live
        # Many readers of one turn come at once when a process dies: one of them reads the row.
        loading = self._loading.get(task_id)
        if loading is None:
            # Not in the task group: there its failure would end every turn.
            loading = self._loading[task_id] = self._store.shielded.start(self._store.reader.load(task_id))
            loading.add_done_callback(lambda _: self._loading.pop(task_id, None))
        turn = await asyncio.shield(loading)
        if turn is None:
            return None
        return self.find(task_id) or self._spawn(turn, owned=False)

    async def _abandon_unacknowledged(self, caller: Caller, task_id: TaskId) -> None:
        """End a turn whose client heard that it has not begun; otherwise it is adopted, and runs once."""
        try:
            async with asyncio.timeout(self._limits.abandon_seconds):
                if await self._end_unacknowledged(caller, task_id) is None:
                    # The statement that begins it may still be on its way in the database.
                    await asyncio.sleep(self._limits.late_commit_seconds)
                    await self._end_unacknowledged(caller, task_id)
        except Exception as error:  # noqa: BLE001 - one turn's failure must not end the others
            logger.error("could not be abandoned: %s", type(error).__name__, extra={"task_id": task_id})

    async def _end_unacknowledged(self, caller: Caller, task_id: TaskId) -> Stopped | None:
        return await self._store.retried(lambda: self._store.intake.stop(caller, task_id, NOT_BEGUN))

    @contextmanager
    def adopting(self) -> Generator[None]:
        """While the store is asked for turns to adopt: a drain has to hand over what it gives."""
        self._adopting += 1
        try:
            yield
        finally:
            self._adopting -= 1

    def adopt(self, turn: Turn) -> None:
        """Drive a turn that the store has just given to this process."""
        if self._drain.is_over:
            # It could no longer be ended here. Another process adopts it when its lease has run out.
            return
        if live := self._running.get(turn.task_id):
            live.adopt(turn)
        else:
            self._spawn(turn, owned=True)

    def _spawn(self, turn: Turn, *, owned: bool, span: "Span | None" = None) -> LiveTurn:
        log = EventLog()
        runner = TurnRunner(
            turn,
            owned=owned,
            resources=self._resources,
            emit=log.extend,
            span=span,
        )
        live = self._running[turn.task_id] = LiveTurn(turn, log, runner)
        if self.draining.is_set() and not owned:
            # Readers that come while this process leaves are sent elsewhere.
            live.hand_over()
        live.start(self._run(live), self._spawn_task)
        return live

    async def _run(self, live: LiveTurn) -> None:
        try:
            await self._run_to_end(live)
        finally:
            # The last, so that nothing of the turn depends on its span.
            try:
                live.runner.leave_span()
            except Exception as error:  # noqa: BLE001 - one turn's failure must not end the others
                logger.error("its span was not ended: %s", type(error).__name__)

    async def _run_to_end(self, live: LiveTurn) -> None:
        try:
            await live.runner.run()
        except Exception as error:  # noqa: BLE001 - one turn's failure must not end the others
            # The lease runs out and somebody ends the turn; its readers are not kept waiting here. Only
            # the kind of error is logged: databases quote texts of the row they refused.
            logger.error("the end was not stored: %s", type(error).__name__)
        finally:
            live.end()
            if self._running.get(live.turn.task_id) is live:
                del self._running[live.turn.task_id]
            if live.result is not None:
                live.runner.release_memory()
                self._ended.keep(live)
        # Only now: neither a log nor a backend that does not answer may delay the turn's readers.
        if live.runner.stored_end and live.result is not None:
            try:
                report_end(live, live.result)
            except Exception as error:  # noqa: BLE001 - the run is still to be cleaned up
                logger.error("the end was not told: %s", type(error).__name__)
        try:
            await live.runner.clean_up()
        except Exception as error:  # noqa: BLE001 - one turn's failure must not end the others
            logger.error("the turn was not cleaned up: %s", type(error).__name__)

    def find(self, task_id: TaskId) -> LiveTurn | None:
        """A turn that is live in this process, or was a moment ago."""
        live = self._running.get(task_id) or self._ended.find(task_id)
        if live is not None:
            # The caller is about to read.
            live.touch()
        return live

    def running(self) -> list[LiveTurn]:
        """The turns that this process drives. This and the next may be asked from any thread."""
        return [live for live in tuple(self._running.values()) if live.runner.owned]

    def followed(self) -> list[LiveTurn]:
        """The turns that this process only reads."""
        return [live for live in tuple(self._running.values()) if not live.runner.owned]

    def drop_unread(self) -> None:
        """Stop following turns that nobody has read for a while; what is offered may come back."""
        for live in self.followed():
            if live.unread_for(self._limits.unread_seconds) and not self._drain.offers(live.turn.task_id):
                # Gone from here at once: a reader that comes now must not find what is about to end.
                del self._running[live.turn.task_id]
                live.cancel()

    async def stop(self, caller: Caller, task_id: TaskId) -> None:
        """Stop a turn of this caller, wherever it runs; nothing happens when there is none (R9)."""
        stopped = await self._store.intake.stop(caller, task_id)
        if stopped is not None:
            self._propagate_stop(stopped)

    async def delete(self, caller: Caller, conversation_id: ConversationId) -> None:
        """Delete a conversation of this caller; its turns are stopped (R16). Raises NotFound."""
        for stopped in await self._store.intake.delete(caller, conversation_id):
            self._propagate_stop(stopped)

    def _propagate_stop(self, stopped: Stopped) -> None:
        if stopped.ended:
            metrics.TURNS_ENDED(Outcome.STOPPED.value, "").inc()
            # No process drives it that could tell its end.
            logger.info("turn stopped", extra={"task_id": stopped.task_id, "outcome": Outcome.STOPPED.value})
        self.stop_run(stopped.task_id, stopped.run_id)
        live = self._running.get(stopped.task_id)
        if live is not None and stopped.run_id is None:
            live.runner.recheck()

    def stop_run(self, task_id: TaskId, run_id: RunId | None) -> None:
        """Cancel the run of a turn that the store knows to be stopped, and tell its runner if it is here."""
        live = self._running.get(task_id)
        if live is not None:
            live.runner.stop()
            run_id = run_id or live.runner.run_id
        if run_id is not None:
            seconds = self._resources.limits.cancel_seconds
            self._spawn_task(cancel_quietly(self._backend, run_id, seconds), f"cancel-{task_id}")

    async def drain(self, seconds: float) -> bool:
        """Take no new turns and give the running ones up: to another process, or to their end (R12).

        Returns after that and a moment at the latest; False when the database did not do its part.
        """
        return await self._drain.run(seconds)
