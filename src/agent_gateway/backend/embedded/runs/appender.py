"""Writes what the runs of a process say into the log: all that is due at once goes in one commit.

Nothing waits for others: what is due while no write is on its way goes at once, and what comes meanwhile goes
together as soon as it is back. While the log cannot be written, runs go on for a while, and readers get
nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Final

from agent_gateway.backend.embedded.runs.log import RunLog
from agent_gateway.backend.embedded.runs.run import Run
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.run_log import Batch
from agent_gateway.errors import StoreError, StoreRejected
from agent_gateway.retry import doubled, jittered

MAX_RUNS: Final = 500
"""Runs of one commit."""
MAX_BYTES: Final = 2 * 1024 * 1024
"""Bytes of one commit, more or less."""
HOLD_SECONDS: Final = 60.0
HOLD_BYTES: Final = 8 * 1024 * 1024
"""How long, and with how many bytes, a run goes on while the log cannot be written."""
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Appender:
    """Appends what runs have to say; at work only while there is something."""

    def __init__(
        self,
        log: RunLog,
        *,
        failed: Callable[[], None],
        ended: Callable[[Run], None],
        fenced: Callable[[Run], None],
        given_up: Callable[[Run], None],
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        """`failed` is called after each write that failed, `ended` with a run whose end is in the log.

        `fenced` is called with a run that is not ours any more, `given_up` with one that had to wait for too
        long: what they had to say is lost.
        """
        self._log = log
        self._failed = failed
        self._ended = ended
        self._fenced = fenced
        self._given_up = given_up
        self._hold_seconds = hold_seconds
        self._due: dict[RunId, Run] = {}
        self._task: asyncio.Task[None] | None = None

    def due(self, run: Run) -> None:
        """This run has something to say."""
        self._due[run.id] = run
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="run log", context=Context())

    async def flush(self, seconds: float) -> None:
        """Wait until all is written, at most so long; then give up."""
        if (task := self._task) is not None:
            await asyncio.wait({task}, timeout=seconds)
            task.cancel()
            await asyncio.wait({task})

    async def _work(self) -> None:
        try:
            failures, since = 0, 0.0
            loop = asyncio.get_running_loop()
            while self._due:
                runs = self._next()
                try:
                    await self._append(runs)
                    failures = 0
                    continue
                except StoreError as error:
                    self._failed()
                    logger.debug("the run log cannot be written: %s", error)
                since = since if failures else loop.time()
                self._give_up(late=loop.time() - since > self._hold_seconds)
                failures += 1
                await asyncio.sleep(jittered(doubled(failures, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)))
        finally:
            self._task = None

    def _next(self) -> list[Run]:
        """The runs of the next commit. Those that are not in it come first the next time."""
        runs: list[Run] = []
        size = 0
        for run_id, run in list(self._due.items()):
            if len(runs) == MAX_RUNS or size >= MAX_BYTES:
                break
            del self._due[run_id]
            if run.epoch and run.has_waiting:
                runs.append(run)
                size += len(run.batch().data)
        return runs

    async def _append(self, runs: list[Run]) -> None:
        """Append a batch of each. When that fails, all of them are due again."""
        batches = [run.batch() for run in runs]
        try:
            ours = await self._log.append(batches) if batches else set()
        except StoreRejected as error:
            if len(runs) > 1:
                # The data of one of them: each goes alone now, and fails alone.
                for run in runs:
                    await self._append([run])
                return
            logger.error("events were refused by the run log: %s", error, extra={"run_id": runs[0].id})
            self._given_up(runs[0])
            return
        except BaseException:
            self._due = {run.id: run for run in runs} | self._due
            raise
        for run, batch in zip(runs, batches, strict=True):
            self._told(run, batch, is_ours=run.id in ours)

    def _told(self, run: Run, batch: Batch, *, is_ours: bool) -> None:
        if run.epoch != batch.epoch:
            return
        if not is_ours:
            self._fenced(run)
            return
        run.logged(batch)
        if run.status != "running":
            self._ended(run)
        elif run.has_waiting:
            self._due[run.id] = run

    def _give_up(self, *, late: bool) -> None:
        for run in list(self._due.values()):
            if late or run.waiting_bytes > HOLD_BYTES:
                self._due.pop(run.id, None)
                logger.error("a run could not be logged for too long", extra={"run_id": run.id})
                self._given_up(run)
