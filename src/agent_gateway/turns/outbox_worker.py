"""The outbox worker: does what the outbox holds, besides all turns and after them.

An entry is done at least once; a second time only when a process died, or lost the database, between the work
and its record. To cancel or to close twice is harmless; a name or questions are then made again.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Self

from structlog.contextvars import bind_contextvars

from agent_gateway.backend.protocol import Backend
from agent_gateway.errors import BackendError, RunNotSucceeded, StoreError, TurnError
from agent_gateway.limits import OutboxLimits
from agent_gateway.retry import doubled, full_jitter
from agent_gateway.store.turns.outbox import OutboxEntry, OutboxKind
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.auxiliary_runs import AuxiliaryRuns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Persistence:
    """How often and how long a kind of entry is tried."""

    tries: int
    seconds: float


_PERSISTENCE: Final = {
    OutboxKind.CANCEL_RUN: _Persistence(30, 6 * 3600.0),
    OutboxKind.CLOSE_SESSION: _Persistence(100, 24 * 3600.0),
    # Later than this nobody waits for them.
    OutboxKind.NAME_CONVERSATION: _Persistence(3, 600.0),
    OutboxKind.SUGGEST_QUESTIONS: _Persistence(3, 600.0),
}


class OutboxWorker:
    """Does what is due; an async context manager whose exit gives back what is not done yet."""

    def __init__(
        self,
        turns: TurnStores,
        backend: Backend,
        auxiliary_runs: AuxiliaryRuns,
        draining: asyncio.Event,
        limits: OutboxLimits,
        cancel_seconds: float,
    ) -> None:
        self._outbox = turns.outbox
        self._shielded = turns.shielded
        self._backend = backend
        self._auxiliary_runs = auxiliary_runs
        self._draining = draining
        self._limits = limits
        self._cancel_seconds = cancel_seconds
        self._doing: dict[asyncio.Task[None], OutboxEntry] = {}
        self._settled = asyncio.Event()

    async def start_due(self) -> None:
        """Claim what is due, as much as there is room for, and begin to do it."""
        while (room := self._limits.max_entries - len(self._doing)) > 0 and not self._draining.is_set():
            taken = await self._outbox.claim(room)
            for entry in taken:
                task = asyncio.create_task(self._do(entry), name=f"entry-{entry.id}")
                self._doing[task] = entry
                task.add_done_callback(self._done)
            if len(taken) < room:
                return

    async def settled(self, seconds: float) -> None:
        """Wait until any entry of this process was done, at most this long."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave what is not done to other processes, or to the next start."""
        left = list(self._doing.values())
        self.cancel()
        if not left:
            return
        try:
            async with asyncio.timeout(self._limits.give_back_seconds):
                await asyncio.wait(list(self._doing))
                await self._outbox.reschedule(left, 0.0)
        except (StoreError, TimeoutError) as error:
            logger.warning("outbox entries could not be given back: %s", type(error).__name__)

    def cancel(self) -> list[asyncio.Task[None]]:
        """End all work at once, as the death of the process would; returns the tasks."""
        tasks = list(self._doing)
        for task in tasks:
            task.cancel()
        return tasks

    def _done(self, task: asyncio.Task[None]) -> None:
        if len(self._doing) == self._limits.max_entries:
            # There may be more that had no room.
            self._outbox.written.set()
        del self._doing[task]
        self._settled.set()
        self._settled = asyncio.Event()

    async def _do(self, entry: OutboxEntry) -> None:
        bind_contextvars(task_id=entry.task_id)
        try:
            try:
                made = await self._made(entry)
            except (BackendError, TimeoutError, TurnError) as error:
                await self._failed(entry, error)
            else:
                await self._shielded(self._outbox.complete(entry, made))
        except StoreError as error:
            logger.warning("outbox entry %s: store: %s", entry.kind, error)
        except Exception as error:  # noqa: BLE001 - one entry's failure must not end the others
            # It is tried again when its hold is over. Only the kind of error: texts may be quoted.
            logger.error("outbox entry %s: %s", entry.kind, type(error).__name__)

    async def _made(self, entry: OutboxEntry) -> str | list[str] | None:
        if entry.kind is OutboxKind.CANCEL_RUN:
            assert entry.run_id is not None
            async with asyncio.timeout(self._cancel_seconds):
                await self._backend.cancel(entry.run_id)
            return None
        if entry.answered is None:
            raise TurnError("internal_server_error")
        match entry.kind:
            case OutboxKind.CLOSE_SESSION:
                await self._auxiliary_runs.close(entry.answered.turn, self._limits.run_seconds)
                return None
            case OutboxKind.NAME_CONVERSATION:
                return await self._auxiliary_runs.name(entry.answered, self._limits.run_seconds)
            case OutboxKind.SUGGEST_QUESTIONS:
                return await self._auxiliary_runs.questions(entry.answered, self._limits.run_seconds)

    async def _failed(self, entry: OutboxEntry, error: Exception) -> None:
        persistence = _PERSISTENCE[entry.kind]
        # A backend that answers and still fails will most likely fail again.
        fails = isinstance(error, RunNotSucceeded | TurnError)
        hopeless = fails and entry.tries >= self._limits.max_failures
        if hopeless or entry.tries >= persistence.tries or entry.age_seconds > persistence.seconds:
            logger.error(
                "outbox entry %s: given up after %d tries: %s: %s",
                entry.kind,
                entry.tries,
                type(error).__name__,
                # The texts of these errors are the gateway's own; a timeout has none.
                error,
            )
            await self._shielded(self._outbox.complete(entry))
            return
        longest = doubled(entry.tries, self._limits.first_pause_seconds, self._limits.longest_pause_seconds)
        await self._shielded(self._outbox.reschedule([entry], max(0.1, full_jitter(longest))))
