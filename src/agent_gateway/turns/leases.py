"""The heartbeat: one statement renews the leases of all live turns of this process (R6)."""

import asyncio
import logging

from agent_gateway.errors import StoreError
from agent_gateway.store.turns import TurnStore
from agent_gateway.turns.live import Form, LiveTurns

logger = logging.getLogger(__name__)


async def keep_leases(live: LiveTurns[Form], store: TurnStore, lease_seconds: float) -> None:
    """Renew leases each third of their length until cancelled; pass on stops, notice what was lost."""
    while True:
        await asyncio.sleep(lease_seconds / 3)
        held = {turn.turn.task_id: turn for turn in live.running()}
        try:
            renewed = await store.heartbeat(turn.turn for turn in held.values())
        except StoreError as error:
            logger.warning("leases were not renewed: %s", error)
            continue
        for task_id, turn in held.items():
            if turn.ended.is_set():
                continue
            if task_id not in renewed:
                turn.runner.lose()
            elif renewed[task_id]:
                turn.runner.stop()
