"""What a process owes to all turns at once: heartbeat, sweep, statuses, checkpoints (R5, R6, R11)."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from agent_gateway.errors import ObjectError, StoreError, StoreUnavailable
from agent_gateway.limits import MaintenanceIntervals
from agent_gateway.store.files import FileStore
from agent_gateway.store.turns.form_answers import EXPIRY_BATCH
from agent_gateway.store.turns.ownership import ADOPTION_BATCH
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.descriptors import require_descriptors
from agent_gateway.turns.form_waiters import FormWaiters
from agent_gateway.turns.outbox_worker import OutboxWorker
from agent_gateway.turns.registry import LiveTurn, LiveTurns

CHECKPOINTS: Final = 50
"""Folds dumped in one go; the loop gets its breath between two."""

logger = logging.getLogger(__name__)
_dice = random.SystemRandom()


class AdoptionGuard:
    """Whether an expired lease means that its owner is gone, or that nobody could renew any.

    A process that has just started, or that could not reach the database for half a lease, waits one
    whole lease before it takes expired turns, so that after an outage nobody adopts everybody (R11).
    """

    def __init__(self, lease_seconds: float, sweep_seconds: float) -> None:
        self._lease = lease_seconds
        self.half_lease = lease_seconds / 2
        self.sweep_seconds = min(sweep_seconds, lease_seconds / 4)
        """Well under half a lease, so that a pause between two sweeps is not taken for an outage."""
        now = asyncio.get_running_loop().time()
        self._reached = now
        self._since = now + lease_seconds
        self._renewed = now
        self._missed = False

    def renewed(self) -> None:
        """A heartbeat went through."""
        self._renewed = asyncio.get_running_loop().time()
        self._missed = False
        self.reached()

    def missed(self) -> None:
        """A heartbeat did not go through."""
        self._missed = True

    @property
    def steady(self) -> bool:
        """True when the last heartbeat went through and the next is not overdue.

        Otherwise expired leases may be our own, although the database answers whoever else asks.
        """
        late = asyncio.get_running_loop().time() - self._renewed > self._lease * 2 / 3
        return not self._missed and not late

    def reached(self) -> None:
        """The database has just answered."""
        now = asyncio.get_running_loop().time()
        if now - self._reached > self.half_lease:
            self._since = now + self._lease
        self._reached = now

    @property
    def in_leases(self) -> bool:
        """True when expired turns may be adopted."""
        now = asyncio.get_running_loop().time()
        return now >= self._since and now - self._reached <= self.half_lease


class Maintenance:
    """What a process does about all turns again and again. `start` them, cancel what that returns."""

    def __init__(
        self,
        live: LiveTurns,
        store: TurnStores,
        errands: OutboxWorker,
        answers: FormWaiters,
        files: FileStore,
        lease_seconds: float,
        intervals: MaintenanceIntervals,
    ) -> None:
        self._live = live
        self._store = store
        self._errands = errands
        self._answers = answers
        self._files = files
        self._lease_seconds = lease_seconds
        self._intervals = intervals
        self._trust = AdoptionGuard(lease_seconds, intervals.sweep_seconds)

    def start(
        self, installed: asyncio.Event, *further: tuple[Callable[[], Awaitable[None]], float]
    ) -> list[asyncio.Task[None]]:
        """One task for each duty, and for what else is to be done every so many seconds.

        None does anything before the schema is installed.
        """
        self._installed = installed
        duties: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.beat, self._lease_seconds / 3),
            (self.watch, self._intervals.status_seconds),
            (self.look_for_answers, self._intervals.status_seconds),
            (self.expire_forms, self._intervals.expiry_seconds),
            (self.save_checkpoints, self._intervals.checkpoint_seconds),
            (self.tidy, self._intervals.tidy_seconds),
            *further,
        ]
        tasks = [asyncio.create_task(self._repeat(work, each), name=work.__name__) for work, each in duties]
        hurried: list[tuple[Callable[[], Awaitable[None]], float, asyncio.Event]] = [
            (self.sweep, self._trust.sweep_seconds, self._store.owned.promoted),
            (self._errands.run_errands, self._intervals.outbox_seconds, self._store.outbox.written),
        ]
        return tasks + [
            asyncio.create_task(self._repeat(work, each, hurry), name=work.__name__)
            for work, each, hurry in hurried
        ]

    async def _repeat(
        self, work: Callable[[], Awaitable[None]], seconds: float, hurry: asyncio.Event | None = None
    ) -> None:
        """Do this for ever, after at most `seconds` or when hurried. One failure is no reason to stop."""
        await self._installed.wait()
        pause = seconds
        while True:
            if hurry is None:
                await asyncio.sleep(pause)
            else:
                try:
                    async with asyncio.timeout(seconds * _dice.uniform(0.5, 1.0)):
                        await hurry.wait()
                except TimeoutError:
                    pass
                hurry.clear()
            # What failed is tried again sooner: leases run out meanwhile.
            pause = seconds / 4
            try:
                await work()
                pause = seconds
            except (StoreError, ObjectError, TimeoutError) as error:
                logger.warning("%s failed: %s", work.__name__, str(error) or "it took too long")
            except Exception as error:  # noqa: BLE001 - a process that gave its duties up would keep its turns
                logger.error("%s failed: %s", work.__name__, type(error).__name__)

    async def beat(self) -> None:
        """Renew leases; pass on stops, notice what was lost."""
        held = {turn.turn.task_id: turn for turn in self._live.running()}
        epochs = {task_id: turn.turn.epoch for task_id, turn in held.items()}
        try:
            renewed = await self._store.owned.heartbeat(turn.turn for turn in held.values())
        except BaseException:
            self._trust.missed()
            raise
        self._trust.renewed()
        for task_id, turn in held.items():
            if turn.ended.is_set() or turn.turn.epoch != epochs[task_id]:
                continue
            if task_id not in renewed:
                turn.runner.demote()
            elif renewed[task_id] and not turn.runner.stopping:
                self._live.stop_run(task_id, None)

    async def prove(self) -> None:
        """Raise StoreUnavailable or Unavailable when this process should take no turns.

        It can not renew their leases, or can not open what they need.
        """
        require_descriptors()
        if self._trust.steady:
            return
        try:
            async with asyncio.timeout(self._intervals.prove_seconds):
                await self._store.shielded(self.beat())
        except TimeoutError:
            raise StoreUnavailable("no heartbeat gets through") from None

    async def sweep(self) -> None:
        """Adopt turns that nobody holds; none while our own heartbeats do not get through."""
        if self._live.draining.is_set() or not self._trust.steady:
            return
        # What takes longer than this was held up, and leases ran out meanwhile that are not to blame.
        async with asyncio.timeout(self._trust.half_lease):
            adopted = await self._store.shielded(self._adopt(expired=self._trust.in_leases))
        self._trust.reached()
        if adopted == ADOPTION_BATCH:
            self._store.owned.promoted.set()

    async def _adopt(self, *, expired: bool) -> int:
        """Adopt, and drive what was adopted even if the sweep waits for it no longer: it is ours now."""
        with self._live.adopting():
            adopted = await self._store.owned.adopt(expired=expired)
            for turn in adopted:
                logger.info("turn %s: adopted under epoch %d", turn.task_id, turn.epoch)
                self._live.adopt(turn)
        return len(adopted)

    async def watch(self) -> None:
        """Read where followed turns stand, all in one query; drop those that nobody reads.

        So are those that we drive, while no heartbeat tells us of them: others may have ended them.
        """
        self._live.drop_unread()
        followed = {turn.turn.task_id: turn for turn in self._live.followed()}
        running: list[LiveTurn] = [] if self._trust.steady else self._live.running()
        doubted = {turn.turn.task_id: turn for turn in running}
        epochs = {task_id: turn.turn.epoch for task_id, turn in doubted.items()}
        if not followed and not doubted:
            return
        statuses = await self._store.reader.statuses([*followed, *doubted])
        for task_id, status in statuses.items():
            if turn := followed.get(task_id):
                turn.runner.on_status(status.run_id, ended=status.ended)
            elif doubted[task_id].turn.epoch == epochs[task_id] and (
                status.ended or status.epoch != epochs[task_id]
            ):
                doubted[task_id].runner.demote()

    async def look_for_answers(self) -> None:
        """Notice answers to questions that somebody waits for here."""
        if self._live.draining.is_set():
            self._answers.leave()
        await self._answers.look()

    async def expire_forms(self) -> None:
        """Close the forms that nobody submitted in time."""
        if self._live.draining.is_set():
            return
        while await self._store.intake.expire_forms() == EXPIRY_BATCH:
            pass

    async def save_checkpoints(self) -> None:
        """Store the folds that went on since they were stored last."""
        running = self._live.running()
        for start in range(0, len(running), CHECKPOINTS):
            batch = running[start : start + CHECKPOINTS]
            taken = [(live, state) for live in batch if (state := live.runner.checkpoint()) is not None]
            if taken:
                await self._store.owned.save_checkpoints([(live.turn, state) for live, state in taken])
                for live, _ in taken:
                    live.runner.checkpointed()
            await asyncio.sleep(0)

    async def tidy(self) -> None:
        """Delete what is not remembered any more."""
        await self._store.intake.delete_expired_keys()
        await self._files.tidy()
