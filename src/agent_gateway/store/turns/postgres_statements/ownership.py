"""What the owner of turns writes while they go on: arm, running, and their leases."""

from typing import Final

from sqlalchemy import Integer, Text, bindparam, cast, update

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.prepared import PreparedForPostgres
from agent_gateway.store.db.tables import turns
from agent_gateway.store.turns.postgres_statements.clauses import UUID, arrays, locked_turns

_GIVEN: Final = arrays("given", task=UUID, epoch=Integer(), run=Text())


def _arm() -> PreparedForPostgres:
    locked = locked_turns(_GIVEN, (TurnState.PLANNED, TurnState.SENDING))
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == locked.c.id, turns.c.stop_at.is_(None))
        .values(state=TurnState.SENDING.value)
        .returning(cast(turns.c.id, Text))
    )


def _mark_running() -> PreparedForPostgres:
    locked = locked_turns(_GIVEN, (TurnState.SENDING, TurnState.RUNNING), _GIVEN.c.run)
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == locked.c.id)
        .values(state=TurnState.RUNNING.value, run_id=locked.c.run)
        .returning(cast(turns.c.id, Text), turns.c.stop_at.is_not(None))
    )


def _renew() -> PreparedForPostgres:
    locked = locked_turns(_GIVEN, (TurnState.PLANNED, TurnState.SENDING, TurnState.RUNNING), waits=True)
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == locked.c.id)
        .values(lease_until=now_plus(bindparam("lease_seconds")))
        .returning(cast(turns.c.id, Text), turns.c.stop_at.is_not(None))
    )


ARM: Final = _arm()
MARK_RUNNING: Final = _mark_running()
RENEW: Final = _renew()
