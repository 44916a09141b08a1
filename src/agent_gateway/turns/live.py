"""The owner of every live turn of this process: start, find, stop, drain.

Turns are tasks of one task group that lives as long as the service. A response only reads: it can
come and go without the turn noticing (I6).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from agent_gateway.backend.protocol import Backend
from agent_gateway.domain import Caller, TaskId, Turn, TurnRequest
from agent_gateway.errors import Unavailable
from agent_gateway.events import Result, TurnEvent
from agent_gateway.runner import Limits, TurnRunner, cancel_quietly
from agent_gateway.store.turns import TurnStore
from agent_gateway.turns.log import EventLog

Form = TypeVar("Form", bound=Hashable)

KEEP_SECONDS: Final = 60.0
KEEP_BYTES: Final = 64 * 1024 * 1024
"""Logs of ended turns stay for readers about to reconnect, within these bounds (R13)."""
INTERRUPT_SECONDS: Final = 10.0
"""How long interrupted turns may take to store their end."""

logger = logging.getLogger(__name__)


class LiveTurn(Generic[Form]):
    """A turn of this process: its log for readers, its runner for whoever stops it."""

    def __init__(self, turn: Turn, log: EventLog[Form], runner: TurnRunner) -> None:
        self.turn = turn
        self.log = log
        self.runner = runner
        self.ended = asyncio.Event()

    @property
    def result(self) -> Result | None:
        """What was stored, once the turn has ended."""
        return self.runner.result

    def belongs_to(self, app_id: str, user: str) -> bool:
        """True for the app and user whose turn this is (I11)."""
        return self.turn.app.id == app_id and self.turn.user == user


class LiveTurns(Generic[Form]):
    """All live turns; an async context manager whose exit ends what is left."""

    def __init__(
        self,
        *,
        backend: Backend,
        store: TurnStore,
        limits: Limits,
        most: int,
        environ: Mapping[str, str],
        encoder: Callable[[Turn], Callable[[TurnEvent, Form], bytes]],
    ) -> None:
        self.draining = asyncio.Event()
        self._backend = backend
        self._store = store
        self._limits = limits
        self._most = most
        self._environ = environ
        self._encoder = encoder
        self._beginning = 0
        self._running: dict[TaskId, LiveTurn[Form]] = {}
        self._ended: OrderedDict[TaskId, LiveTurn[Form]] = OrderedDict()
        self._ended_bytes = 0
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain(0)
        await self._tasks.__aexit__(kind, error, trace)

    async def start(self, caller: Caller, request: TurnRequest) -> LiveTurn[Form] | TaskId:
        """Begin a turn and run it; or the task id of the one its Idempotency-Key made before.

        Raises Unavailable when draining or full, and what `TurnStore.begin` raises.
        """
        if self.draining.is_set():
            raise Unavailable("This server is shutting down. Please try again.", retry_after=1)
        if len(self._running) + self._beginning >= self._most:
            raise Unavailable("Too many turns are running. Please try again.", retry_after=5)
        self._beginning += 1
        try:
            turn = await self._store.begin(caller, request)
        finally:
            self._beginning -= 1
        if not isinstance(turn, Turn):
            return turn
        log = EventLog(self._encoder(turn))
        runner = TurnRunner(
            turn,
            backend=self._backend,
            store=self._store,
            limits=self._limits,
            environ=self._environ,
            emit=log.extend,
        )
        live = self._running[turn.task_id] = LiveTurn(turn, log, runner)
        self._tasks.create_task(self._run(live), name=f"turn-{turn.task_id}")
        return live

    async def _run(self, live: LiveTurn[Form]) -> None:
        try:
            await live.runner.run()
        except Exception as error:  # noqa: BLE001 - one turn's trouble must not end the others
            # The lease runs out and somebody ends the turn; its readers are not kept waiting here. Only
            # the kind of error is logged: databases quote texts of the row they refused.
            logger.error("turn %s: its end was not stored: %s", live.turn.task_id, type(error).__name__)
        finally:
            live.log.close()
            live.ended.set()
            del self._running[live.turn.task_id]
            self._keep(live)
        if live.runner.left_running:
            # Only now: a backend that does not answer must not hold up the turn's readers.
            await live.runner.cancel_run()

    def _keep(self, live: LiveTurn[Form]) -> None:
        self._ended[live.turn.task_id] = live
        self._ended_bytes += live.log.size
        while self._ended_bytes > KEEP_BYTES:
            self._forget(next(iter(self._ended)))
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._forget, live.turn.task_id)

    def _forget(self, task_id: TaskId) -> None:
        if live := self._ended.pop(task_id, None):
            self._ended_bytes = max(0, self._ended_bytes - live.log.size)

    def find(self, task_id: TaskId) -> LiveTurn[Form] | None:
        """A turn this process runs, or ran a moment ago."""
        return self._running.get(task_id) or self._ended.get(task_id)

    def running(self) -> list[LiveTurn[Form]]:
        """The turns running now."""
        return list(self._running.values())

    async def stop(self, caller: Caller, task_id: TaskId) -> None:
        """Stop a turn of this caller, wherever it runs; nothing happens when there is none (R9)."""
        stopped = await self._store.stop(caller, task_id)
        if stopped is None:
            return
        if live := self._running.get(task_id):
            live.runner.stop()
            self._tasks.create_task(live.runner.cancel_run(), name=f"cancel-{task_id}")
        elif stopped.run_id is not None:
            cancel = cancel_quietly(self._backend, stopped.run_id)
            self._tasks.create_task(cancel, name=f"cancel-{task_id}")

    async def drain(self, seconds: float) -> None:
        """Take no new turns, let the running ones go on for a while, then interrupt them (R12)."""
        self.draining.set()
        if self._running:
            logger.info("draining: waiting up to %.0f s for %d turns", seconds, len(self._running))
        await self._wait_for_ends(seconds)
        for live in self.running():
            logger.warning("draining: turn %s is interrupted", live.turn.task_id)
            live.runner.interrupt()
        await self._wait_for_ends(INTERRUPT_SECONDS)

    async def _wait_for_ends(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(live.ended.wait()) for live in self.running()]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=seconds)
            for wait in pending:
                wait.cancel()
