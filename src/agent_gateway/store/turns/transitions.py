"""The guarded changes of a turn's row that its owner makes before the run is known (R4)."""

from typing import Final

from sqlalchemy import bindparam, update

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.tables import in_states, turns

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
