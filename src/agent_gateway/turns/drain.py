"""How a process leaves: it takes no new turns, and gives its own to another process or ends them (R12)."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from agent_gateway.domain.ids import TaskId
from agent_gateway.errors import StoreError
from agent_gateway.limits import DrainLimits
from agent_gateway.turn_resources import Resources
from agent_gateway.turns.handover import Handover
from agent_gateway.turns.live_turn import LiveTurn

POLL_SECONDS = 0.05
"""Between two rounds of the handover."""
RETRY_SECONDS = 0.5
"""The same after a round that did not get through."""

logger = logging.getLogger(__name__)


class Drain:
    """Drains the turns in `turns`, which are those of the registry at any time."""

    def __init__(
        self,
        turns: Mapping[TaskId, LiveTurn],
        resources: Resources,
        limits: DrainLimits,
        *,
        alone: bool,
        is_arriving: Callable[[], bool],
        is_adopting: Callable[[], bool],
    ) -> None:
        self.begun = asyncio.Event()
        """Set when the process begins to leave."""
        self.is_over = False
        self._turns = turns
        self._store = resources.store
        self._runs_stay = resources.backend.outlives_process
        self._limits = limits
        self._is_arriving = is_arriving
        self._is_adopting = is_adopting
        self._handover = Handover(resources.store, limits, alone=alone)

    def offers(self, task_id: TaskId) -> bool:
        """True for a turn that was released here and may come back."""
        return task_id in self._handover.offered

    async def run(self, seconds: float) -> bool:
        """Give up the turns within this time.

        Returns after that and a moment at the latest; False when the database did not do its part.
        """
        self.begun.set()
        until = asyncio.get_running_loop().time() + seconds
        await self._wait_for_the_others(seconds)
        done = await self._hand_over_all(until)
        if self._runs_stay and done:
            # The process that starts next takes the rest. The store keeps turns in `sending`: they would lose
            # their runs.
            done = await self._in_time(self._handover.release(self._releasable()), until)
        self._end_what_is_left()
        await self._until_ended()
        self.is_over = True
        return done

    async def _wait_for_the_others(self, seconds: float) -> None:
        """A process that does not know yet that it leaves would adopt what is offered, and offer it again."""
        if self._turns:
            logger.info("draining: %d turns, up to %.0f s", len(self._turns), seconds)
            if not self._handover.alone:
                await asyncio.sleep(min(self._limits.together_seconds, seconds))

    async def _hand_over_all(self, until: float) -> bool:
        """Hand over until nothing holds this process any longer; False when the last round failed."""
        while True:
            done = await self._in_time(self._hand_over(), until)
            is_busy = self._is_arriving() or self._is_adopting() or any(map(self._blocks, self._all()))
            if asyncio.get_running_loop().time() >= until or not is_busy:
                return done
            await asyncio.sleep(POLL_SECONDS if done else RETRY_SECONDS)

    async def _hand_over(self) -> None:
        """Offer what others can continue, once each, and send the readers that can resume after it."""
        if not self._handover.alone:
            for live in self._followed():
                if not live.handed_over and not self.offers(live.turn.task_id):
                    live.hand_over()
            # A sweep of ours that is still on its way would adopt what is offered.
            if self._runs_stay and not self._is_adopting():
                await self._handover.offer([live for live in self._releasable() if not live.runner.sending])
        await self._handover.settle([live for live in self._followed() if live.readers])

    def _end_what_is_left(self) -> None:
        for live in self._all():
            if live.runner.owned and (live.runner.sending or not self._runs_stay):
                logger.warning("draining: interrupted", extra={"task_id": live.turn.task_id})
                live.runner.interrupt()
            elif not (live.runner.owned and live.runner.ending):
                # Another process has it, or will: what could not be released is adopted when its lease ends.
                live.cancel()

    async def _until_ended(self) -> None:
        """Wait for the ends of interrupted turns, for as long as some of them get through."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._limits.interrupt_seconds
        waits = {asyncio.ensure_future(live.ended.wait()) for live in self._turns.values()}
        try:
            while waits and loop.time() < latest:
                done, waits = await asyncio.wait(
                    waits, timeout=self._limits.grace_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    return
        finally:
            for wait in waits:
                wait.cancel()

    async def _in_time(self, work: Coroutine[Any, Any, None], until: float) -> bool:
        """Do this, but not for longer than the drain and a moment: the database may be away or frozen."""
        latest = max(until, asyncio.get_running_loop().time()) + self._limits.grace_seconds
        try:
            async with asyncio.timeout_at(latest):
                await self._store.shielded(work)
        except (StoreError, TimeoutError) as error:
            reason = str(error) or "the database does not answer"
            logger.warning("draining: turns could not be handed over: %s", reason)
            return False
        return True

    def _blocks(self, live: LiveTurn) -> bool:
        """True for our own turns, and those that somebody reads to the end here."""
        return bool(live.runner.owned or live.readers or self.offers(live.turn.task_id))

    def _all(self) -> list[LiveTurn]:
        return list(self._turns.values())

    def _followed(self) -> list[LiveTurn]:
        return [live for live in self._all() if not live.runner.owned]

    def _releasable(self) -> list[LiveTurn]:
        """Turns that can continue elsewhere; those whose end is decided are finished here."""
        return [live for live in self._all() if live.runner.owned and not live.runner.ending]
