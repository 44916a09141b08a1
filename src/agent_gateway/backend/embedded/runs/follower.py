"""Follows the runs of other processes in the log, for as long as somebody reads them here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Final

from agent_gateway.backend.embedded.runs.log import RunLog
from agent_gateway.backend.embedded.runs.run import Run
from agent_gateway.domain.ids import RunId
from agent_gateway.errors import BackendUnreachable, StoreError

SHORTEST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 0.4
"""Between two looks at all followed runs: the shortest after something was new, then longer and longer."""
AWAY_SECONDS: Final = 10.0
"""How long readers wait for a log that cannot be read; another process may reach it."""

logger = logging.getLogger(__name__)


class Follower:
    """Looks at all followed runs in one statement; at work only while there are some."""

    def __init__(
        self, log: RunLog, *, failed: Callable[[], None], lost: Callable[[Run, int], Awaitable[None]]
    ) -> None:
        """`lost` is called with a run whose owner is gone, and with its epoch."""
        self._log = log
        self._failed = failed
        self._lost = lost
        self._followed: dict[RunId, Run] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self, run: Run) -> None:
        """Read this run until it ends or `leave` is called."""
        self._followed[run.id] = run
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="followed runs", context=Context())

    def leave(self, run: Run) -> None:
        """Nobody reads this run here any longer, or it is ours."""
        self._followed.pop(run.id, None)

    async def aclose(self) -> None:
        """Follow nothing any longer."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        pause, reached = SHORTEST_PAUSE_SECONDS, loop.time()
        try:
            while self._followed:
                try:
                    grown = await self._look()
                    reached = loop.time()
                except StoreError as error:
                    self._failed()
                    logger.debug("the run log cannot be read: %s", error)
                    grown = False
                    if loop.time() - reached > AWAY_SECONDS:
                        self._break_off()
                pause = SHORTEST_PAUSE_SECONDS if grown else min(LONGEST_PAUSE_SECONDS, pause * 1.5)
                await asyncio.sleep(pause)
        finally:
            self._task = None

    async def _look(self) -> bool:
        """Whether there was anything new."""
        asked = dict(self._followed)
        readings = await self._log.poll([(run_id, len(run.events)) for run_id, run in asked.items()])
        grown = False
        for run_id, run in asked.items():
            if self._followed.get(run_id) is not run:
                continue
            reading = readings.get(run_id)
            if reading is None:
                self.leave(run)
                run.break_off(BackendUnreachable("the run was removed"))
                continue
            grown = grown or bool(reading.pieces)
            run.learn(reading)
            if run.status != "running":
                self.leave(run)
            elif reading.lost:
                await self._lost(run, reading.epoch)
            else:
                run.lost_at = None
        return grown

    def _break_off(self) -> None:
        for run in list(self._followed.values()):
            self.leave(run)
            run.break_off(BackendUnreachable("the run log cannot be read"))
