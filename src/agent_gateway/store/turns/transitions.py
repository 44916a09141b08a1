"""The guarded changes of a turn's row that its owner makes while it has not ended (R4, R6)."""

from typing import Final

from sqlalchemy import bindparam, update

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import in_states, is_active, turns

OURS: Final = (
    turns.c.id == bindparam("task"),
    turns.c.owner == bindparam("our_owner"),
    turns.c.epoch == bindparam("our_epoch"),
)
"""Guards the writes of an owner (I9)."""
ARM: Final = (
    update(turns)
    .where(*OURS, in_states(turns, TurnState.PLANNED, TurnState.SENDING), turns.c.stop_at.is_(None))
    .values(state=TurnState.SENDING.value)
)
"""`planned → sending`, before POST /runs."""
MARK_RUNNING: Final = (
    update(turns)
    .where(*OURS, in_states(turns, TurnState.SENDING, TurnState.RUNNING))
    .values(state=TurnState.RUNNING.value, run_id=bindparam("run_id"))
    .returning(turns.c.stop_at)
)
"""`sending → running`, before the first event is sent to a client."""
RENEW: Final = (
    update(turns)
    .where(*OURS, is_active(turns))
    .values(lease_until=now_plus(bindparam("lease_seconds")))
    .returning(turns.c.stop_at)
)
"""Renews the lease."""
