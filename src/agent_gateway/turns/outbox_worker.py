"""The errands of this process: what the outbox holds is done here, besides all turns and after them.

An errand is done at least once; a second time only when a process died, or lost the database, between
the work and its record. Cancelling and closing bear that; a name or questions are then made again.
"""

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Final

from agent_gateway.backend.protocol import Backend
from agent_gateway.errors import BackendError, RunNotSucceeded, StoreError, TurnError
from agent_gateway.limits import OutboxLimits
from agent_gateway.store.turns.outbox import OutboxEntry, OutboxKind
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.auxiliary_runs import AuxiliaryRuns

logger = logging.getLogger(__name__)
_dice = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class _Patience:
    """How often and how long a kind of errand is tried."""

    tries: int
    seconds: float


_PATIENCE: Final = {
    OutboxKind.CANCEL_RUN: _Patience(30, 6 * 3600.0),
    OutboxKind.CLOSE_SESSION: _Patience(100, 24 * 3600.0),
    # Later than this nobody waits for them any more.
    OutboxKind.NAME_CONVERSATION: _Patience(3, 600.0),
    OutboxKind.SUGGEST_QUESTIONS: _Patience(3, 600.0),
}


class OutboxWorker:
    """Does what is due; `aclose` gives back what is not done yet."""

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
        self._small_runs = auxiliary_runs
        self._draining = draining
        self._limits = limits
        self._cancel_seconds = cancel_seconds
        self._doing: dict[asyncio.Task[None], OutboxEntry] = {}
        self._settled = asyncio.Event()

    async def run_errands(self) -> None:
        """Take what is due, as much as there is room for, and begin to do it."""
        while (room := self._limits.max_entries - len(self._doing)) > 0 and not self._draining.is_set():
            taken = await self._outbox.claim(room)
            for errand in taken:
                task = asyncio.create_task(self._do(errand), name=f"errand-{errand.id}")
                self._doing[task] = errand
                task.add_done_callback(self._done)
            if len(taken) < room:
                return

    async def settled(self, seconds: float) -> None:
        """Wait until any errand of this process was done, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            pass

    async def aclose(self) -> None:
        """Leave what is not done to other processes, or to the next start."""
        left = list(self._doing.values())
        for task in list(self._doing):
            task.cancel()
        if not left:
            return
        try:
            async with asyncio.timeout(self._limits.give_back_seconds):
                await asyncio.wait(list(self._doing))
                await self._outbox.reschedule(left, 0.0)
        except (StoreError, TimeoutError) as error:
            logger.warning("errands could not be given back: %s", type(error).__name__)

    def _done(self, task: asyncio.Task[None]) -> None:
        if len(self._doing) == self._limits.max_entries:
            # There may be more that had no room.
            self._outbox.written.set()
        del self._doing[task]
        self._settled.set()
        self._settled = asyncio.Event()

    async def _do(self, errand: OutboxEntry) -> None:
        try:
            try:
                made = await self._made(errand)
            except (BackendError, TimeoutError, TurnError) as error:
                await self._failed(errand, error)
            else:
                await self._shielded(self._outbox.complete(errand, made))
        except StoreError as error:
            logger.warning("errand %s of turn %s: store: %s", errand.kind, errand.task_id, error)
        except Exception as error:  # noqa: BLE001 - one errand's trouble must not end the others
            # It is tried again when its hold is over. Only the kind of error: texts may be quoted.
            logger.error("errand %s of turn %s: %s", errand.kind, errand.task_id, type(error).__name__)

    async def _made(self, errand: OutboxEntry) -> str | list[str] | None:
        if errand.kind is OutboxKind.CANCEL_RUN:
            assert errand.run_id is not None
            async with asyncio.timeout(self._cancel_seconds):
                await self._backend.cancel(errand.run_id)
            return None
        if errand.answered is None:
            raise TurnError("internal_server_error")
        match errand.kind:
            case OutboxKind.CLOSE_SESSION:
                await self._small_runs.close(errand.answered.turn, self._limits.run_seconds)
                return None
            case OutboxKind.NAME_CONVERSATION:
                return await self._small_runs.name(errand.answered, self._limits.run_seconds)
            case OutboxKind.SUGGEST_QUESTIONS:
                return await self._small_runs.questions(errand.answered, self._limits.run_seconds)

    async def _failed(self, errand: OutboxEntry, error: Exception) -> None:
        patience = _PATIENCE[errand.kind]
        # A backend that is there and still fails will most likely go on to.
        fails = isinstance(error, RunNotSucceeded | TurnError)
        hopeless = fails and errand.tries >= self._limits.max_failures
        if hopeless or errand.tries >= patience.tries or errand.age_seconds > patience.seconds:
            logger.error(
                "errand %s of turn %s: given up after %d tries: %s: %s",
                errand.kind,
                errand.task_id,
                errand.tries,
                type(error).__name__,
                # The texts of these errors are the gateway's own; a timeout has none.
                error,
            )
            await self._shielded(self._outbox.complete(errand))
            return
        longest = min(self._limits.longest_pause_seconds, self._limits.first_pause_seconds * 2**errand.tries)
        await self._shielded(self._outbox.reschedule([errand], _dice.uniform(0.1, longest)))
