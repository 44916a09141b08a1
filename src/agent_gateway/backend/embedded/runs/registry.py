"""The runs of this process: those that it drives, and those of other processes that somebody reads here."""

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import msgspec

from agent_gateway.backend.embedded.runs.appender import Appender
from agent_gateway.backend.embedded.runs.follower import Follower
from agent_gateway.backend.embedded.runs.keeper import LOOK_SECONDS, Keeper
from agent_gateway.backend.embedded.runs.log import RunLog
from agent_gateway.backend.embedded.runs.outcomes import (
    Cancellation,
    Ending,
    Execute,
    RunFailed,
    RunInterrupted,
    Stopping,
)
from agent_gateway.backend.embedded.runs.requests import may_restart, read_request
from agent_gateway.backend.embedded.runs.run import Run
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.domain.ids import RunId, new_id
from agent_gateway.domain.run_log import NewRun
from agent_gateway.errors import BackendUnreachable, RunLost, StoreError, StoreUnavailable
from agent_gateway.retry import jittered

KEEP_BYTES: Final = 32 * 1024 * 1024
"""Of finished runs that stay in memory, for readers that come late."""
MAX_EPOCH: Final = 4
"""A run is started again three times at most: it may be what kills its processes."""
CREATE_SECONDS: Final = 5.0
"""How long a new run waits for a log that cannot be written."""
RETRY_SECONDS: Final = 0.2
CERTAIN_SECONDS: Final = 1.2 * LOOK_SECONDS
"""How long a run must look lost before it is taken over: meanwhile an owner that lives renews its lease."""
TIDY_SECONDS: Final = 3600.0

LOST: Final = RunFailed("the process that ran the agent is gone", "process_lost")
SHUTDOWN: Final = RunFailed("run cancelled during server shutdown", "shutdown")

logger = logging.getLogger(__name__)


class Runs:
    """All runs of this process. It owns their tasks, and `aclose` ends each of them.

    `stop_seconds` is how long a cancelled task may take to end before its run ends without it. With
    `log_ends` each run has a line in the log when it ends: for a process that does nothing else, while in a
    gateway the turns have theirs.
    """

    def __init__(
        self,
        execute: Execute,
        log: RunLog,
        *,
        keep_bytes: int = KEEP_BYTES,
        stop_seconds: float = 3.0,
        log_ends: bool = False,
    ) -> None:
        self._log_ends = log_ends
        self._execute = execute
        self._log = log
        self._keep_bytes = keep_bytes
        self._stop_seconds = stop_seconds
        self._kept = 0
        self._runs: dict[str, Run] = {}
        """Those that it drives, those that somebody reads, and some that have finished."""
        self._driven: dict[RunId, Run] = {}
        """Those that it drives and that have not ended in the log."""
        self._finished: deque[Run] = deque()
        self._stopping = False
        self._trusts_at = 0.0
        """When an expired lease means again that its owner is gone (see `_doubt`)."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._appender = Appender(
            log, failed=self._doubt, ended=self._ended, fenced=self._fenced, given_up=self._give_up
        )
        self._keeper = Keeper(
            log,
            lambda: list(self._driven.values()),
            failed=self._doubt,
            fenced=self._fenced,
            cancel=self._cancel_soon,
        )
        self._follower = Follower(log, failed=self._doubt, lost=self._take_over)

    async def create(self, request: CreateRunRequest) -> Run:
        """Start a run. A request with the idempotency key of an earlier one starts none, and gets that one.

        Raises Stopping after `aclose` was called, and StoreUnavailable when the log cannot be written.
        """
        if self._stopping:
            raise Stopping
        run = Run(RunId(new_id()), self._log.clock, self._appender.due)
        stored = msgspec.json.encode(request) if may_restart(request) else None
        new = run.new(request, stored)
        found = await self._begin(new)
        if found != run.id:
            async with self.opened(found) as earlier:
                return earlier
        run.begun(new.data)
        self._drive(run, request)
        if self._stopping:
            await self._stop([run], SHUTDOWN)
        return run

    @asynccontextmanager
    async def opened(self, run_id: str) -> AsyncGenerator[Run]:
        """A run to be read. While the block runs, it gets what its process logs, wherever that is.

        Raises RunLost when it is unknown or was removed, and StoreError when the log cannot be read.
        """
        run = self._runs.get(run_id)
        if run is None:
            run = await self._read(run_id)
        else:
            run.users += 1
        try:
            yield run
        finally:
            run.users -= 1
            self._let_go(run)

    async def cancel(self, run_id: str, cancellation: Cancellation) -> Run:
        """Cancel a run and wait until it has ended, for a while; raises RunLost when it is unknown.

        The status of the returned run shows whether it was cancelled or had finished before.
        """
        async with self.opened(run_id) as run:
            if run.status == "running" and run.epoch:
                await self._stop([run], cancellation)
            elif run.status == "running":
                await self._log.ask_to_cancel(run.id, msgspec.json.encode(cancellation))
            if run.status == "running":
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._stop_seconds):
                        await run.ended()
            return run

    @asynccontextmanager
    async def tidying(self) -> AsyncGenerator[None]:
        """While the block runs, delete the runs that ended long ago from the log, once an hour.

        For a process that does nothing else: in a gateway that is part of its own maintenance.
        """
        task = asyncio.create_task(self._tidy(), name="tidy runs")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(jittered(TIDY_SECONDS))
            try:
                if removed := await self._log.prune():
                    logger.info("removed %d runs", removed)
            except StoreError as error:
                logger.warning("old runs were not removed: %s", error)

    async def aclose(self) -> None:
        """Accept no more runs, and end the running ones with `run_failed`, reason `shutdown`."""
        self._stopping = True
        await self._follower.aclose()
        for run in list(self._runs.values()):
            if run.status == "running" and not run.epoch:
                run.break_off(BackendUnreachable("this process is stopping"))
        await self._stop(list(self._driven.values()), SHUTDOWN)
        await self._appender.flush(self._stop_seconds)
        await self._keeper.aclose()

    # -- runs that this process drives --------------------------------------------------------------------

    async def _begin(self, new: NewRun) -> RunId:
        until = asyncio.get_running_loop().time() + CREATE_SECONDS
        while True:
            try:
                # The same id again: if the answer of the first try was lost, the second one finds it.
                return await self._log.begin(new)
            except StoreUnavailable:
                self._doubt()
                if asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(jittered(RETRY_SECONDS))

    def _keep(self, run: Run) -> None:
        self._runs[run.id] = self._driven[run.id] = run
        self._keeper.wake()

    def _drive(self, run: Run, request: CreateRunRequest) -> None:
        self._keep(run)
        run.task = asyncio.create_task(self._work(run, run.epoch, request), name=f"run {run.id}")

    async def _work(self, run: Run, epoch: int, request: CreateRunRequest) -> None:
        def emit(data: bytes, delta: bytes) -> Run:
            # Not what a task still says whose run is driven by another one.
            return run.emit(data, delta) if run.epoch == epoch else run

        end: Callable[[], None] = run.end_as_asked
        try:
            end = partial(run.succeed, await self._execute(request, emit))
        except RunInterrupted as interrupted:
            end = partial(run.end_as_asked, interrupted.leftovers)
        except RunFailed as failure:
            end = partial(run.fail, failure)
            if self._log_ends:
                logger.warning("run failed: %s", failure.cause, extra=_told_of(run))
        except Exception as error:  # noqa: BLE001 - a run must end, whatever its agent does
            # Its text may hold credentials or a user's words, so only its type and place are logged.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}"
            logger.error("the run broke: %s at %s", type(error).__name__, where, extra={"run_id": run.id})
            end = partial(run.fail, RunFailed("the agent run failed unexpectedly"))
        finally:
            if run.epoch == epoch:
                end()

    async def _stop(self, runs: list[Run], ending: Ending) -> None:
        for run in runs:
            run.ask_to_end(ending)
        tasks = [run.task for run in runs if run.task is not None and not run.task.done()]
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._stop_seconds)
        for run in runs:
            # Also one whose task was cancelled before its first step, or does not end.
            run.end_as_asked()

    def _cancel_soon(self, run: Run, cancellation: Cancellation) -> None:
        task = asyncio.create_task(self._stop([run], cancellation), name=f"cancel of run {run.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, run: Run) -> None:
        """A run of ours has ended in the log: drop the oldest finished ones."""
        self._driven.pop(run.id, None)
        run.epoch = 0
        if self._log_ends and run.error is None:
            run.context.run(logger.info, "run %s", run.status, extra=_told_of(run))
        self._finished.append(run)
        run.users += 1
        self._kept += run.size
        while self._kept > self._keep_bytes and len(self._finished) > 1:
            dropped = self._finished.popleft()
            self._kept -= dropped.size
            dropped.users -= 1
            self._let_go(dropped)

    def _fenced(self, run: Run) -> None:
        """Another process owns this run of ours, or it was removed: follow it, if somebody reads it here."""
        logger.warning("a run has another owner, or was removed", extra={"run_id": run.id})
        self._leave(run)
        if self._log.shared:
            self._follower.follow(run)
        else:
            run.break_off(BackendUnreachable("the run was removed"))
        self._let_go(run)

    def _give_up(self, run: Run) -> None:
        """What this run says cannot be logged: it ends here, and whoever finds it ends it in the log."""
        self._leave(run)
        run.break_off(BackendUnreachable("the run log cannot be written"))
        del self._runs[run.id]

    def _leave(self, run: Run) -> None:
        self._driven.pop(run.id, None)
        run.disown()
        if run.task is not None:
            run.task.cancel()

    # -- runs of other processes --------------------------------------------------------------------------

    async def _read(self, run_id: str) -> Run:
        """The run as the log has it, with one user more."""
        run, reading = Run(RunId(run_id), self._log.clock, self._appender.due), None
        while reading is None or (reading.pieces and run.status == "running"):
            reading = await self._log.read(run_id, len(run.events))
            if reading is None:
                raise RunLost("run not found")
            run.learn(reading)
        # Somebody else may have read it meanwhile.
        run = self._runs.setdefault(run.id, run)
        run.users += 1
        try:
            if run.status == "running" and reading.lost:
                await self._take_over(run, reading.epoch)
            if run.status == "running" and not run.epoch:
                self._follow(run)
        except BaseException:
            run.users -= 1
            self._let_go(run)
            raise
        return run

    def _follow(self, run: Run) -> None:
        if not self._log.shared:
            # It is of this process, which has given it up.
            raise RunLost("the run could not be logged")
        if self._stopping:
            raise BackendUnreachable("this process is stopping")
        self._follower.follow(run)

    def _let_go(self, run: Run) -> None:
        if not run.users and run.id not in self._driven and self._runs.get(run.id) is run:
            self._follower.leave(run)
            del self._runs[run.id]

    async def _take_over(self, run: Run, epoch: int) -> None:
        """The owner of this run is gone: start it again if its app wants that and it can, or end it."""
        if self._stopping or (self._log.shared and not self._is_certain(run)):
            return
        taken = await self._log.take(run.id, epoch)
        if taken is None:
            return
        # From now on nobody else writes to it. What its owner had logged meanwhile:
        while (reading := await self._log.read(run.id, len(run.events))) is not None and reading.pieces:
            run.learn(reading)
        self._follower.leave(run)
        request = taken.request if taken.epoch <= MAX_EPOCH else None
        run.own(taken.epoch, restartable=request is not None)
        told = {"run_id": run.id, "epoch": run.epoch}
        if taken.cancel is not None:
            self._keep(run)
            run.ask_to_end(Cancellation(*msgspec.json.decode(taken.cancel)))
            run.end_as_asked()
        elif request is not None:
            logger.warning("a run whose process is gone is started again", extra=told)
            self._drive(run, read_request(request))
        else:
            logger.warning("a run whose process is gone is ended", extra=told)
            self._keep(run)
            run.fail(LOST)

    def _is_certain(self, run: Run) -> bool:
        """Whether a lease that has run out means that its owner is gone, and not that it could not renew it.

        After an outage of the database an owner needs a moment.
        """
        now = asyncio.get_running_loop().time()
        if run.lost_at is None:
            run.lost_at = now
        return now >= max(self._trusts_at, run.lost_at + CERTAIN_SECONDS)

    def _doubt(self) -> None:
        """The log could not be reached. Maybe others could not renew their leases: they get time for that."""
        self._trusts_at = asyncio.get_running_loop().time() + self._log.lease_seconds / 2


def _told_of(run: Run) -> dict[str, object]:
    return {
        "run_id": run.id,
        "seconds": round(time.monotonic() - run.began, 3),
        "chunks": max(0, len(run.events) - 2),
    }
