"""The owner of every live turn of this process: start, follow, adopt, stop, drain.

Turns are tasks of one task group that lives as long as the service. A response only reads: it can
come and go without the turn noticing (I6).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from agent_gateway.backend.run_handle import cancel_quietly
from agent_gateway.domain.human_input import Submission
from agent_gateway.domain.ids import AppId, ConversationId, RunId, TaskId, new_id
from agent_gateway.domain.turns import Caller, Turn, TurnRequest, TurnState
from agent_gateway.errors import StoreError, StoreUnavailable, Unavailable
from agent_gateway.limits import DrainLimits, RegistryLimits
from agent_gateway.resources import Resources
from agent_gateway.runner import TurnRunner
from agent_gateway.store.turns.intake import NOT_BEGUN, Repeated
from agent_gateway.store.turns.stopping import Stopped
from agent_gateway.turns.descriptors import require_descriptors
from agent_gateway.turns.handover import Handover
from agent_gateway.turns.live_turn import LiveTurn
from agent_gateway.turns.log import EventLog

logger = logging.getLogger(__name__)


class LiveTurns:
    """All live turns; an async context manager whose exit ends what is left."""

    def __init__(
        self,
        *,
        resources: Resources,
        most: int,
        shared: bool,
        limits: RegistryLimits,
        drain_limits: DrainLimits,
    ) -> None:
        self.draining = asyncio.Event()
        self._resources = resources
        self._backend = resources.backend
        self._store = resources.store
        self._most = most
        self._limits = limits
        self._drain_limits = drain_limits
        self._beginning = 0
        self._adopting = 0
        self._loading: dict[TaskId, asyncio.Future[Turn | None]] = {}
        self._running: dict[TaskId, LiveTurn] = {}
        self._ended: OrderedDict[TaskId, LiveTurn] = OrderedDict()
        self._ended_bytes = 0
        self._tasks = asyncio.TaskGroup()
        self._started: set[asyncio.Task[None]] = set()
        self._abandoning: set[asyncio.Task[None]] = set()
        self._handover = Handover(self._store, drain_limits, alone=not shared)
        self._drained = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._drained:
            await self.drain(0)
        # The database is away, and the lease runs out: whoever can ends this turn. Or the backend is, and
        # the run is cancelled by an errand.
        for task in self._started:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def _begin_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(work, name=name)
        self._started.add(task)
        task.add_done_callback(self._started.discard)
        return task

    # -- beginning, following, adopting --------------------------------------------------------------

    async def start(self, caller: Caller, request: TurnRequest) -> LiveTurn | TaskId:
        """Begin a turn and run it, or follow it while it is queued; or the task id of the one that
        its Idempotency-Key made before.

        Raises Unavailable when draining or full, and what `TurnIntake.begin` raises.
        """
        task_id = TaskId(new_id())
        with self._admitting():
            try:
                begun = await self._store.intake.begin(caller, request, task_id)
            except StoreUnavailable:
                if not request.idempotency_key and len(self._abandoning) < self._limits.max_abandoned:
                    # Its commit may have gone through all the same, and the client will ask again (R14).
                    abandoning = self._begin_task(
                        self._abandon_unacknowledged(caller, task_id), f"abandon-{task_id}"
                    )
                    self._abandoning.add(abandoning)
                    abandoning.add_done_callback(self._abandoning.discard)
                raise
        if isinstance(begun, Repeated):
            return begun.task_id
        for stopped in begun.interrupted:
            self._propagate_stop(stopped)
        return self._attach(begun.turn)

    async def submit(self, app_id: AppId, token: str, submission: Submission) -> LiveTurn:
        """Answer a form, and run the turn that carries the answer, or follow it while it is queued.

        Raises Unavailable when draining or full, and what `TurnIntake.submit` raises. After a commit whose
        answer was lost the form counts as submitted: its turn is adopted when its lease has run out.
        """
        with self._admitting():
            turn = await self._store.intake.submit(app_id, token, submission)
        return self._attach(turn)

    def _attach(self, turn: Turn) -> LiveTurn:
        """Run a turn that was begun here, or follow it while it is queued."""
        owned = turn.state is not TurnState.QUEUED
        live = self.find(turn.task_id)
        if live is None:
            return self._spawn(turn, owned=owned)
        # Its commit was seen before we were told: a reader came here, or it was promoted and adopted.
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
            loading = self._loading[task_id] = asyncio.ensure_future(self._store.reader.load(task_id))
            loading.add_done_callback(lambda _: self._loading.pop(task_id, None))
        turn = await asyncio.shield(loading)
        if turn is None:
            return None
        return self.find(task_id) or self._spawn(turn, owned=False)

    async def _abandon_unacknowledged(self, caller: Caller, task_id: TaskId) -> None:
        """End a turn that its client was told has not begun; later it is adopted, and runs once."""
        try:
            async with asyncio.timeout(self._limits.abandon_seconds):
                await self._store.retried(lambda: self._store.intake.stop(caller, task_id, NOT_BEGUN))
        except Exception as error:  # noqa: BLE001 - one turn's trouble must not end the others
            logger.error("turn %s: could not be abandoned: %s", task_id, type(error).__name__)

    @contextmanager
    def adopting(self) -> Generator[None]:
        """While the store is asked for turns to adopt: what it gives, a drain has to hand over."""
        self._adopting += 1
        try:
            yield
        finally:
            self._adopting -= 1

    def adopt(self, turn: Turn) -> None:
        """Drive a turn that the store has just given to this process."""
        if self._drained:
            # Nothing is begun that could not be ended: whoever can adopts it when its lease has run out.
            return
        if live := self._running.get(turn.task_id):
            live.handed_over = False
            live.runner.adopt(turn)
        else:
            self._spawn(turn, owned=True)

    def _spawn(self, turn: Turn, *, owned: bool) -> LiveTurn:
        log = EventLog()
        runner = TurnRunner(
            turn,
            owned=owned,
            resources=self._resources,
            emit=log.extend,
        )
        live = self._running[turn.task_id] = LiveTurn(turn, log, runner)
        # Who comes to read while this process leaves is sent on.
        live.handed_over = self.draining.is_set() and not owned
        live.task = self._begin_task(self._run(live), f"turn-{turn.task_id}")
        return live

    async def _run(self, live: LiveTurn) -> None:
        try:
            await live.runner.run()
        except Exception as error:  # noqa: BLE001 - one turn's trouble must not end the others
            # The lease runs out and somebody ends the turn; its readers are not kept waiting here. Only
            # the kind of error is logged: databases quote texts of the row they refused.
            logger.error("turn %s: its end was not stored: %s", live.turn.task_id, type(error).__name__)
        finally:
            live.log.close()
            live.ended.set()
            if self._running.get(live.turn.task_id) is live:
                del self._running[live.turn.task_id]
            if live.result is not None:
                live.runner.release_memory()
                self._keep(live)
        # Only now: a backend that does not answer must not hold up the turn's readers.
        try:
            await live.runner.cancel_orphaned_run()
        except Exception as error:  # noqa: BLE001 - one turn's trouble must not end the others
            logger.error("turn %s: its run was not cleaned up: %s", live.turn.task_id, type(error).__name__)

    def _keep(self, live: LiveTurn) -> None:
        self._ended[live.turn.task_id] = live
        live.log.freeze()
        # Who ran it has the texts of its result in the log; who read it from the rows has them twice.
        live.kept_bytes = live.log.size + (0 if live.runner.owned else live.log.events_size)
        self._ended_bytes += live.kept_bytes
        while self._ended_bytes > self._limits.keep_bytes:
            self._forget(next(iter(self._ended)))
        asyncio.get_running_loop().call_later(self._limits.keep_seconds, self._forget, live.turn.task_id)

    def _forget(self, task_id: TaskId) -> None:
        if live := self._ended.pop(task_id, None):
            self._ended_bytes -= live.kept_bytes

    # -- looking -----------------------------------------------------------------------------------

    def find(self, task_id: TaskId) -> LiveTurn | None:
        """A turn that is live in this process, or was a moment ago."""
        live = self._running.get(task_id) or self._ended.get(task_id)
        if live is not None:
            # Whoever asks is about to read.
            live.unread_since = asyncio.get_running_loop().time()
        return live

    def running(self) -> list[LiveTurn]:
        """The turns that this process drives. This and the next may be asked from any thread."""
        return [live for live in tuple(self._running.values()) if live.runner.owned]

    def followed(self) -> list[LiveTurn]:
        """The turns that this process only reads."""
        return [live for live in tuple(self._running.values()) if not live.runner.owned]

    def drop_unread(self) -> None:
        """Stop following turns that nobody has read for a while; what is offered may come back."""
        oldest = asyncio.get_running_loop().time() - self._limits.unread_seconds
        for live in self.followed():
            if live.turn.task_id in self._handover.offered:
                continue
            if not live.readers and live.unread_since < oldest and live.task:
                # Gone from here at once: who comes now must not find what is about to end.
                del self._running[live.turn.task_id]
                live.task.cancel()

    # -- stopping, draining ------------------------------------------------------------------------

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
            self._begin_task(self._cancel(run_id), f"cancel-{task_id}")

    async def drain(self, seconds: float) -> bool:
        """Take no new turns and give the running ones up: to another process, or to their end (R12).

        Returns after that and a moment at the latest; False when the database did not do its part.
        """
        self.draining.set()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._running:
            logger.info("draining: %d turns, up to %.0f s", len(self._running), seconds)
            if not self._handover.alone:
                # One that does not know yet would adopt what is offered, only to offer it again.
                await asyncio.sleep(min(self._drain_limits.together_seconds, seconds))
        while True:
            done = await self._in_time(self._hand_over(), until)
            if loop.time() >= until or not self._is_busy():
                break
            await asyncio.sleep(0.05 if done else 0.5)
        if self._backend.replayable and done:
            # What is left is for the process that starts next; the store refuses what has no stored run.
            done = await self._in_time(self._handover.release(self._releasable()), until)
        for live in list(self._running.values()):
            if live.runner.owned and (live.runner.sending or not self._backend.replayable):
                logger.warning("draining: turn %s is interrupted", live.turn.task_id)
                live.runner.interrupt()
            elif live.task and not (live.runner.owned and live.runner.ending):
                # Somebody else's, or soon: what could not be released is adopted when its lease has run out.
                live.task.cancel()
        await self._until_ended()
        self._drained = True
        return done

    def _is_busy(self) -> bool:
        """True while there are turns to hand over, or may be in a moment."""
        return bool(self._beginning or self._adopting or self._loading or self._blocking_drain())

    def _blocking_drain(self) -> list[LiveTurn]:
        """What keeps a draining process: its own turns, and those that somebody reads to the end here."""
        offered = self._handover.offered
        return [
            live
            for live in self._running.values()
            if live.runner.owned or live.readers or live.turn.task_id in offered
        ]

    def _releasable(self) -> list[LiveTurn]:
        """Turns that can go on elsewhere; those whose end is decided are finished here."""
        return [live for live in self.running() if not live.runner.ending]

    async def _hand_over(self) -> None:
        """Offer what others can go on with, once each, and send the readers that can resume after it."""
        if not self._handover.alone:
            for live in self.followed():
                if not live.handed_over and live.turn.task_id not in self._handover.offered:
                    live.hand_over()
            # A sweep of ours that is still on its way would adopt what is offered.
            if self._backend.replayable and not self._adopting:
                await self._handover.offer([live for live in self._releasable() if not live.runner.sending])
        await self._handover.settle([live for live in self.followed() if live.readers])

    async def _in_time(self, work: Coroutine[Any, Any, None], until: float) -> bool:
        """Do this, but not for longer than the drain and a moment: the database may be away or frozen."""
        latest = max(until, asyncio.get_running_loop().time()) + self._drain_limits.grace_seconds
        try:
            async with asyncio.timeout_at(latest):
                await self._store.shielded(work)
        except (StoreError, TimeoutError) as error:
            reason = str(error) or "the database does not answer"
            logger.warning("draining: turns could not be handed over: %s", reason)
            return False
        return True

    async def _until_ended(self) -> None:
        """Wait for the ends of interrupted turns, for as long as some of them get through."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._drain_limits.interrupt_seconds
        waits = {asyncio.ensure_future(live.ended.wait()) for live in self._running.values()}
        while waits and loop.time() < latest:
            done, waits = await asyncio.wait(
                waits, timeout=self._drain_limits.grace_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
        for wait in waits:
            wait.cancel()

    async def _cancel(self, run_id: RunId) -> None:
        await cancel_quietly(self._backend, run_id, self._resources.limits.cancel_seconds)
