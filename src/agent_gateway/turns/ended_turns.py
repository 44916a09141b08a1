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
        self._turns: OrderedDict[TaskId, tuple[LiveTurn, int, float]] = OrderedDict()
        """Each with its size, and with the time until which it is kept: the first ones first."""
        self._timer: asyncio.TimerHandle | None = None

    def keep(self, live: LiveTurn) -> None:
        """Keep a turn that has just ended."""
        live.log.freeze()
        # The process that ran it has the texts of its result in the log; one that read it from the rows has
        # them twice.
        size = OBJECTS_SIZE + live.log.size + (0 if live.runner.owned else live.log.events_size)
        task_id, loop = live.turn.task_id, asyncio.get_running_loop()
        self._forget(task_id)
        self._turns[task_id] = (live, size, loop.time() + self._limits.keep_seconds)
        self.size += size
        while self.size > self._limits.keep_bytes:
            self._forget(next(iter(self._turns)))
        if self._timer is None:
            self._timer = loop.call_later(self._limits.keep_seconds, self._forget_old)

    def find(self, task_id: TaskId) -> LiveTurn | None:
        """The turn, if it is still kept."""
        live, _, _ = self._turns.get(task_id, (None, 0, 0))
        return live

    def _forget(self, task_id: TaskId) -> None:
        _, size, _ = self._turns.pop(task_id, (None, 0, 0))
        self.size -= size

    def _forget_old(self) -> None:
        """Forget those whose time is over; look again when that of the next one is, with those soon after."""
        loop, self._timer = asyncio.get_running_loop(), None
        while self._turns:
            task_id, (_, _, until) = next(iter(self._turns.items()))
            if until > loop.time():
                self._timer = loop.call_at(until + self._limits.keep_seconds / 10, self._forget_old)
                break
            self._forget(task_id)
