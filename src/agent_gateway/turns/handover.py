"""How a leaving process hands its turns over: it offers them, and takes back those that none adopts (R12)."""

import asyncio
import logging

from agent_gateway import metrics
from agent_gateway.domain.ids import TaskId
from agent_gateway.limits import DrainLimits
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.live_turn import LiveTurn

logger = logging.getLogger(__name__)


class Handover:
    """The turns that this process offers to others, and those without an owner."""

    def __init__(self, store: TurnStores, limits: DrainLimits, *, alone: bool) -> None:
        self.alone = alone
        """True when there is no other process, or once none adopted a turn."""
        self.offered: dict[TaskId, LiveTurn] = {}
        """What was released and has not been adopted yet."""
        self._store = store
        self._limits = limits
        self._free_since: dict[TaskId, float] = {}
        self._next_poll = 0.0

    async def offer(self, turns: list[LiveTurn]) -> None:
        """Release these turns; their readers stay until another process has them."""
        now = asyncio.get_running_loop().time()
        for live in await self._released(turns):
            self.offered[live.turn.task_id] = live
            self._free_since[live.turn.task_id] = now

    async def release(self, turns: list[LiveTurn]) -> None:
        """Release these turns for good: another process adopts them, now or when it starts."""
        for live in await self._released(turns):
            live.hand_over()

    async def settle(self, read: list[LiveTurn]) -> None:
        """Send the readers of adopted turns to their new process; take back the turns that none adopts.

        `read` are followed turns with readers: one that left its queue meanwhile may have no owner either.
        """
        now = asyncio.get_running_loop().time()
        turns = {live.turn.task_id: live for live in read} | self.offered
        if not turns or now < self._next_poll:
            return
        self._next_poll = now + self._limits.poll_seconds
        statuses = await self._store.reader.statuses(list(turns))
        for task_id in turns:
            status = statuses.get(task_id)
            if status is not None and status.free:
                self._free_since.setdefault(task_id, now)
            else:
                self._free_since.pop(task_id, None)
            settled = status is None or status.ended or status.elsewhere
            if settled and (live := self.offered.pop(task_id, None)):
                live.hand_over()
        late = [
            task_id
            for task_id, since in self._free_since.items()
            if task_id in turns and (self.alone or now - since > self._limits.adopt_seconds)
        ]
        if late:
            self.alone = True
            logger.info("draining: %d turns were adopted by nobody and continue here", len(late))
        for turn in await self._store.owned.take_back(late) if late else ():
            self._free_since.pop(turn.task_id, None)
            self.offered.pop(turn.task_id, None)
            turns[turn.task_id].adopt(turn)

    async def _released(self, turns: list[LiveTurn]) -> list[LiveTurn]:
        if not turns:
            return []
        released = await self._store.owned.release([(live.turn, live.runner.checkpoint()) for live in turns])
        gone = [live for live in turns if live.turn.task_id in released]
        for live in gone:
            live.runner.demote(released=True)
        metrics.RELEASED.inc(len(gone))
        return gone
