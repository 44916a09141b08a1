"""What a process does for all its turns again and again: heartbeat, sweep, statuses (R5, R6, R11)."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from agent_gateway import metrics
from agent_gateway.domain.turns import TakenFrom, Turn
from agent_gateway.errors import ObjectError, ObjectsUnavailable, StoreError, StoreUnavailable
from agent_gateway.limits import MaintenanceIntervals
from agent_gateway.retry import jittered
from agent_gateway.store.retention import Retention
from agent_gateway.store.turns.form_answers import EXPIRY_BATCH
from agent_gateway.store.turns.ownership import ADOPTION_BATCH
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.file_descriptors import require_descriptors
from agent_gateway.turns.form_waiters import FormWaiters
from agent_gateway.turns.outbox_worker import OutboxWorker
from agent_gateway.turns.registry import LiveTurn, LiveTurns

CHECKPOINT_BATCH: Final = 50
"""Folds dumped in one go; other work runs between two."""

CANCEL_SECONDS: Final = 1.0
"""How long cancelled jobs may take to end."""

logger = logging.getLogger(__name__)


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

        Otherwise expired leases may be our own, although the database answers other processes.
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
    def may_adopt_expired(self) -> bool:
        """True when expired turns may be adopted."""
        now = asyncio.get_running_loop().time()
        return now >= self._since and now - self._reached <= self.half_lease


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is done again and again."""

    work: Callable[[], Awaitable[None]]
    seconds: float
    """The pause between two times; with `wake` the longest."""
    wake: asyncio.Event | None = None
    """Set when there is something to do at once."""


class Maintenance:
    """What a process does for all its turns again and again, while it is `running`."""

    def __init__(
        self,
        live: LiveTurns,
        store: TurnStores,
        outbox_worker: OutboxWorker,
        form_waiters: FormWaiters,
        retention: Retention,
        lease_seconds: float,
        intervals: MaintenanceIntervals,
    ) -> None:
        self._live = live
        self._store = store
        self._outbox_worker = outbox_worker
        self._form_waiters = form_waiters
        self._retention = retention
        self._lease_seconds = lease_seconds
        self._intervals = intervals
        self._guard = AdoptionGuard(lease_seconds, intervals.sweep_seconds)
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self, installed: asyncio.Event, *further: Job) -> AsyncGenerator[None]:
        """Do all jobs, and these as well, while this is entered; none before the schema is installed."""
        self._tasks = [
            asyncio.create_task(self._repeat(job, installed), name=job.work.__name__)
            for job in (*self._jobs(), *further)
        ]
        try:
            yield
        finally:
            # A job that does not end is not waited for: its database may be frozen.
            await asyncio.wait(self.cancel(), timeout=CANCEL_SECONDS)

    def cancel(self) -> list[asyncio.Task[None]]:
        """End all jobs at once, as the death of the process would; returns their tasks."""
        for task in self._tasks:
            task.cancel()
        return self._tasks

    def _jobs(self) -> list[Job]:
        every = self._intervals
        return [
            Job(self.heartbeat, self._lease_seconds / 3),
            Job(self.sweep, self._guard.sweep_seconds, wake=self._store.owned.promoted),
            Job(self.refresh_statuses, every.status_seconds),
            Job(self.poll_forms, every.status_seconds),
            Job(self.expire_forms, every.expiry_seconds),
            Job(self.save_checkpoints, every.checkpoint_seconds),
            Job(self.tidy, every.tidy_seconds),
            Job(self._outbox_worker.start_due, every.outbox_seconds, wake=self._store.outbox.written),
        ]

    async def _repeat(self, job: Job, installed: asyncio.Event) -> None:
        """Do a job for ever. One failure is no reason to stop."""
        await installed.wait()
        pause = job.seconds
        while True:
            if job.wake is None:
                await asyncio.sleep(pause)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(jittered(job.seconds)):
                        await job.wake.wait()
                job.wake.clear()
            # What failed is tried again sooner: leases expire meanwhile.
            pause = job.seconds / 4
            name = job.work.__name__
            try:
                await job.work()
                pause = job.seconds
            except (StoreUnavailable, ObjectsUnavailable) as error:
                # What is away is told by its condition, not by all who need it.
                logger.debug("%s failed: %s", name, error)
            except (StoreError, ObjectError, TimeoutError) as error:
                logger.warning("%s failed: %s", name, str(error) or "it took too long")
            except Exception as error:  # noqa: BLE001 - a process without its jobs would keep its turns
                logger.error("%s failed: %s", name, type(error).__name__)

    async def heartbeat(self) -> None:
        """Renew leases; propagate stops, and demote turns that were lost."""
        held = {turn.turn.task_id: turn for turn in self._live.running()}
        epochs = {task_id: turn.turn.epoch for task_id, turn in held.items()}
        try:
            renewed = await self._store.owned.heartbeat(turn.turn for turn in held.values())
        except BaseException:
            self._guard.missed()
            raise
        self._guard.renewed()
        for task_id, turn in held.items():
            if turn.ended.is_set() or turn.turn.epoch != epochs[task_id]:
                continue
            if task_id not in renewed:
                metrics.FENCED("heartbeat").inc()
                turn.runner.demote()
            elif renewed[task_id] and not turn.runner.stopping:
                self._live.stop_run(task_id, None)

    async def prove(self) -> None:
        """Raise StoreUnavailable or Unavailable when this process should take no turns.

        It cannot renew their leases, or cannot open what they need.
        """
        require_descriptors()
        if self._guard.steady:
            return
        try:
            async with asyncio.timeout(self._intervals.prove_seconds):
                await self._store.shielded(self.heartbeat())
        except TimeoutError:
            raise StoreUnavailable("no heartbeat gets through") from None

    async def sweep(self) -> None:
        """Adopt turns that nobody holds; none while our own heartbeats do not get through."""
        if self._live.draining.is_set() or not self._guard.steady:
            return
        # If adoption takes longer than half a lease, this process stalled: leases that expired meanwhile say
        # nothing about their owners.
        async with asyncio.timeout(self._guard.half_lease):
            adopted = await self._store.shielded(self._adopt(expired=self._guard.may_adopt_expired))
        self._guard.reached()
        if adopted == ADOPTION_BATCH:
            self._store.owned.promoted.set()

    async def _adopt(self, *, expired: bool) -> int:
        """Adopt, and drive what was adopted even if the sweep no longer waits for it: it is ours now."""
        with self._live.adopting():
            adopted = await self._store.owned.adopt(expired=expired)
            for turn in adopted:
                self._live.adopt(turn)
            for turn in adopted:
                _tell_adoption(turn)
        return len(adopted)

    async def refresh_statuses(self) -> None:
        """Read where followed turns stand, all in one query; drop those that nobody reads.

        While no heartbeat gets through, our own turns are read as well: another process may have ended them.
        """
        self._live.drop_unread()
        followed = {turn.turn.task_id: turn for turn in self._live.followed()}
        running: list[LiveTurn] = [] if self._guard.steady else self._live.running()
        doubted = {turn.turn.task_id: turn for turn in running}
        epochs = {task_id: turn.turn.epoch for task_id, turn in doubted.items()}
        if not followed and not doubted:
            return
        statuses = await self._store.reader.statuses([*followed, *doubted])
        for task_id in followed.keys() - statuses.keys():
            # Removed with its conversation (R18): its follower reads that, and its readers get an end.
            followed[task_id].runner.recheck()
        for task_id, status in statuses.items():
            if turn := followed.get(task_id):
                turn.runner.on_status(status.run_id, ended=status.ended)
            elif (own := doubted[task_id]).ended.is_set() or own.turn.epoch != epochs[task_id]:
                # It has ended here meanwhile, or is ours under a newer epoch.
                continue
            elif status.ended or status.epoch != epochs[task_id]:
                own.runner.demote()

    async def poll_forms(self) -> None:
        """Notice answers to questions for which a reader waits here."""
        if self._live.draining.is_set():
            self._form_waiters.leave()
        await self._form_waiters.poll()

    async def expire_forms(self) -> None:
        """Close the forms that nobody submitted in time."""
        if self._live.draining.is_set():
            return
        while await self._store.intake.expire_forms() == EXPIRY_BATCH:
            pass

    async def save_checkpoints(self) -> None:
        """Store the folds that have grown since they were stored last."""
        running = self._live.running()
        for start in range(0, len(running), CHECKPOINT_BATCH):
            batch = running[start : start + CHECKPOINT_BATCH]
            taken = [(live, state) for live in batch if (state := live.runner.checkpoint()) is not None]
            if taken:
                await self._store.owned.save_checkpoints([(live.turn, state) for live, state in taken])
                for live, _ in taken:
                    live.runner.checkpointed()
            await asyncio.sleep(0)

    async def tidy(self) -> None:
        """Delete what is not to be kept any longer (R18)."""
        if self._live.draining.is_set():
            return
        counts = await self._retention.prune()
        if removed := ", ".join(f"{count} {kind}" for kind, count in counts.items() if count):
            logger.info("removed %s", removed)


def _tell_adoption(turn: Turn) -> None:
    """Tell that the work on a turn goes on here. Nobody has worked on one that comes from the queue."""
    fields = {"task_id": turn.task_id, "request_id": turn.trace.request_id, "run_id": turn.run_id or ""}
    told = {name: value for name, value in fields.items() if value}
    match turn.taken:
        case TakenFrom.DEAD:
            metrics.ADOPTED("dead").inc()
            logger.warning("adopted from a process that died, under epoch %d", turn.epoch, extra=told)
        case TakenFrom.RELEASED:
            metrics.ADOPTED("released").inc()
            logger.info("adopted from a process that stops, under epoch %d", turn.epoch, extra=told)
        case _:
            logger.debug("taken from the queue", extra=told)
