"""Heartbeat, sweep and statuses: what this process does about all turns at once (R6, R11)."""

import asyncio
import logging
import random
from typing import Final

from agent_gateway.errors import StoreError
from agent_gateway.store.turns import TurnStore
from agent_gateway.turns.live import Form, LiveTurns

SWEEP_SECONDS: Final = 0.8
"""At most this long does a released turn wait for a process to adopt it."""
STATUS_SECONDS: Final = 1.0
CHECKPOINT_SECONDS: Final = 30.0
"""How often the fold of a long turn is stored, for backends that trim their logs."""

logger = logging.getLogger(__name__)


class Trust:
    """Whether an expired lease means that its owner is gone, or that nobody could renew any.

    A process that has just started, or that could not reach the database for half a lease, waits one
    whole lease before it takes expired turns, so that after an outage nobody adopts everybody (R11).
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self.half_lease = lease_seconds / 2
        self.sweep_seconds = min(SWEEP_SECONDS, lease_seconds / 4)
        """Well under half a lease, so that a pause between two sweeps is not taken for an outage."""
        now = asyncio.get_running_loop().time()
        self._reached = now
        self._since = now + lease_seconds

    def reached(self) -> None:
        """The database has just answered."""
        now = asyncio.get_running_loop().time()
        if now - self._reached > self.half_lease:
            self._since = now + self._lease
        self._reached = now

    @property
    def in_leases(self) -> bool:
        """True when expired turns may be adopted."""
        now = asyncio.get_running_loop().time()
        return now >= self._since and now - self._reached <= self.half_lease


async def keep_leases(live: LiveTurns[Form], store: TurnStore, lease_seconds: float, trust: Trust) -> None:
    """Renew leases each third of their length until cancelled; pass on stops, notice what was lost."""
    saved = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(lease_seconds / 3)
        held = {turn.turn.task_id: turn for turn in live.running()}
        epochs = {task_id: turn.turn.epoch for task_id, turn in held.items()}
        try:
            renewed = await store.heartbeat(turn.turn for turn in held.values())
            if held:
                trust.reached()
            now = asyncio.get_running_loop().time()
            if now - saved >= CHECKPOINT_SECONDS:
                saved = now
                await _save_checkpoints(live, store)
        except StoreError as error:
            logger.warning("leases were not renewed: %s", error)
            continue
        for task_id, turn in held.items():
            if turn.ended.is_set() or turn.turn.epoch != epochs[task_id]:
                continue
            if task_id not in renewed:
                turn.runner.lose()
            elif renewed[task_id] and not turn.runner.stopping:
                live.stop_run(task_id, None)


async def _save_checkpoints(live: LiveTurns[Form], store: TurnStore) -> None:
    states = [(turn.turn, turn.runner.checkpoint()) for turn in live.running()]
    if held := [(turn, state) for turn, state in states if state is not None]:
        await store.save_checkpoints(held)


async def sweep(live: LiveTurns[Form], store: TurnStore, trust: Trust, installed: asyncio.Event) -> None:
    """Adopt turns that nobody holds, each `trust.sweep_seconds` or at once when told, until cancelled.

    Not before the schema is `installed`.
    """
    await installed.wait()
    while True:
        try:
            async with asyncio.timeout(trust.sweep_seconds * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                await live.sweep_now.wait()
        except TimeoutError:
            pass
        live.sweep_now.clear()
        if live.draining.is_set():
            return
        try:
            # What takes longer than this was held up, and leases ran out meanwhile that are not to blame.
            async with asyncio.timeout(trust.half_lease):
                adopted = await store.adopt(expired=trust.in_leases)
            trust.reached()
        except (StoreError, TimeoutError) as error:
            logger.warning("the sweep could not look for turns: %s", error or "it took too long")
            continue
        for turn in adopted:
            logger.info("turn %s: adopted under epoch %d", turn.task_id, turn.epoch)
            live.adopt(turn)


async def watch(live: LiveTurns[Form], store: TurnStore) -> None:
    """Read where followed turns stand, all in one query, until cancelled; drop those nobody reads."""
    while True:
        await asyncio.sleep(STATUS_SECONDS)
        live.drop_unread()
        followed = {turn.turn.task_id: turn for turn in live.followed()}
        if not followed:
            continue
        try:
            statuses = await store.statuses(list(followed))
        except StoreError as error:
            logger.warning("followed turns could not be looked at: %s", error)
            continue
        for task_id, status in statuses.items():
            followed[task_id].runner.see(status.run_id, ended=status.ended)
