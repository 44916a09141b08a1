"""The gauges of a process: what is looked up when somebody asks, rather than counted when it happens."""

import asyncio
import math
from importlib.metadata import version
from typing import Final

from agent_gateway import metrics
from agent_gateway.store.db.database import Database
from agent_gateway.store.turns.backlog import Backlog, BacklogReader
from agent_gateway.store.turns.outbox import OutboxKind
from agent_gateway.turns.registry import LiveTurns

LOOK_SECONDS: Final = 10.0
"""Pause between two looks at the database, and between two samples where several workers share a port."""
TICK_SECONDS: Final = 0.5
MANY_GAPS: Final = 512
"""To count fewer at once costs more for each: 440 instructions with so many, 740 with 128, 1,900 with 32."""


class Gauges:
    """Sets the gauges of this process."""

    def __init__(self, live: LiveTurns, database: Database, backlog: BacklogReader) -> None:
        self._live = live
        self._database = database
        self._backlog = backlog
        metrics.BUILD(version("agent-gateway")).set(1)
        _tell(None)

    def sample(self) -> None:
        """Set what this process knows of itself."""
        metrics.count_gaps()
        running, followed = self._live.running(), self._live.followed()
        readers = caught_up = 0
        for live in (*running, *followed):
            readers += live.log.readers
            caught_up += len(live.log.caught_up)
        metrics.TURNS_ACTIVE().set(len(running))
        metrics.TURNS_FOLLOWED().set(len(followed))
        metrics.READERS_OPEN().set(readers)
        metrics.READERS_BEHIND().set(max(0, readers - caught_up))
        for pool, (used, size) in self._database.pool_use.items():
            metrics.POOL_IN_USE(pool).set(used)
            metrics.POOL_SIZE(pool).set(size)

    async def look_at_backlog(self) -> None:
        """Set what the database knows, which all processes tell alike."""
        self.sample()
        backlog: Backlog | None = None
        try:
            backlog = await self._backlog.read()
        finally:
            _tell(backlog)


def _tell(backlog: Backlog | None) -> None:
    """Set what the database says; NaN when it says nothing, which would look as if nothing waited."""
    entries = dict.fromkeys(OutboxKind, math.nan) if backlog is None else backlog.outbox
    for kind, number in entries.items():
        metrics.OUTBOX_ENTRIES(kind).set(number)
    metrics.TURNS_QUEUED().set(math.nan if backlog is None else backlog.queued)
    metrics.QUEUED_AGE().set(math.nan if backlog is None else backlog.queued_seconds)
    metrics.OUTBOX_AGE().set(math.nan if backlog is None else backlog.oldest_seconds)


class Meter:
    """Measures twice a second how late the event loop is, and counts gaps when there are many."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start()

    def stop(self) -> None:
        """Count the last gaps, and measure no more."""
        self._timer.cancel()
        metrics.count_gaps()

    def _start(self) -> None:
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        metrics.LOOP_LAG_SECONDS.observe(max(0.0, self._loop.time() - self._due))
        if len(metrics.gaps) >= MANY_GAPS:
            metrics.count_gaps()
        self._start()
