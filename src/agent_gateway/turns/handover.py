"""How a leaving process hands its turns over: it offers them, and takes back what nobody wants (R12)."""

import asyncio
import logging
from typing import Final, Generic

from agent_gateway.domain import TaskId
from agent_gateway.store.turns import TurnStore
from agent_gateway.turns.live_turn import Form, LiveTurn

ADOPT_SECONDS: Final = 2.0
"""How long a turn is nobody's: more than twice the longest pause between the sweeps of another process."""
LOOK_SECONDS: Final = 0.2

logger = logging.getLogger(__name__)


class Handover(Generic[Form]):
    """The turns that this process offers to others."""

    def __init__(self, store: TurnStore) -> None:
        self.offered: dict[TaskId, LiveTurn[Form]] = {}
        """What was released and has not been adopted yet."""
        self._store = store
        self._until: dict[TaskId, float] = {}
        self._next_look = 0.0
        self._alone = False
        """True once nobody wanted a turn: there is no other process."""

    async def offer(self, turns: list[LiveTurn[Form]]) -> None:
        """Release these turns, unless it is known that nobody is there to adopt them."""
        if turns and not self._alone:
            until = asyncio.get_running_loop().time() + ADOPT_SECONDS
            for live in await self._released(turns):
                self.offered[live.turn.task_id] = live
                self._until[live.turn.task_id] = until

    async def release(self, turns: list[LiveTurn[Form]]) -> None:
        """Release these turns for good: another process adopts them, now or when it starts."""
        for live in await self._released(turns):
            live.hand_over()

    async def settle(self) -> None:
        """See who adopted what was offered, and send the readers there; take back what waited too long."""
        now = asyncio.get_running_loop().time()
        if not self.offered or now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        statuses = await self._store.statuses(list(self.offered))
        for task_id, live in list(self.offered.items()):
            status = statuses.get(task_id)
            if status is None or status.ended or status.elsewhere:
                self._forget(task_id)
                live.hand_over()
        late = [task_id for task_id, until in self._until.items() if until < now]
        if late:
            self._alone = True
            logger.info("draining: %d turns were adopted by nobody and go on here", len(late))
            for turn in await self._store.take_back(late):
                if live := self._forget(turn.task_id):
                    live.runner.adopt(turn)

    def _forget(self, task_id: TaskId) -> LiveTurn[Form] | None:
        self._until.pop(task_id, None)
        return self.offered.pop(task_id, None)

    async def _released(self, turns: list[LiveTurn[Form]]) -> list[LiveTurn[Form]]:
        if not turns:
            return []
        released = await self._store.release([(live.turn, live.runner.checkpoint()) for live in turns])
        gone = [live for live in turns if live.turn.task_id in released]
        for live in gone:
            live.runner.lose()
        return gone
