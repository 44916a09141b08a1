"""Ended turns that stay in memory for a moment: for readers that are about to reconnect (R13)."""

import asyncio
from collections import OrderedDict
from typing import Final

from agent_gateway.domain.ids import TaskId
from agent_gateway.limits import RegistryLimits
from agent_gateway.turns.live_turn import LiveTurn

OBJECTS_SIZE: Final = 10 * 1024
"""Bytes of the objects around a turn's texts: measured with 20,000 turns of one token."""


class EndedTurns:
    """Keeps ended turns for a while, bounded in bytes; the oldest are forgotten first."""

    def __init__(self, limits: RegistryLimits) -> None:
        self.size = 0
        """Bytes that all of them take, about."""
        self._limits = limits
        self._turns: OrderedDict[TaskId, tuple[LiveTurn, int]] = OrderedDict()

    def keep(self, live: LiveTurn) -> None:
        """Keep a turn that has just ended."""
        live.log.freeze()
        # The process that ran it has the texts of its result in the log; one that read it from the rows has
        # them twice.
        size = OBJECTS_SIZE + live.log.size + (0 if live.runner.owned else live.log.events_size)
        self._turns[live.turn.task_id] = (live, size)
        self.size += size
        while self.size > self._limits.keep_bytes:
            self._forget(next(iter(self._turns)))
        asyncio.get_running_loop().call_later(self._limits.keep_seconds, self._forget, live.turn.task_id)

    def find(self, task_id: TaskId) -> LiveTurn | None:
        """The turn, if it is still kept."""
        live, _ = self._turns.get(task_id, (None, 0))
        return live

    def _forget(self, task_id: TaskId) -> None:
        _, size = self._turns.pop(task_id, (None, 0))
        self.size -= size
