"""What an operator may do with the turns of all callers: stop one."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select

from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Outcome
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.tables import turns
from agent_gateway.store.turns.locks import LOCKED_TURN, LockedTurn, lock_conversation
from agent_gateway.store.turns.stopping import Stopped, stop_turn

REASON: Final = "operator"


@dataclass(frozen=True, slots=True)
class OperatorStop:
    """What became of an operator's request to stop a turn."""

    ended_before: Outcome | None = None
    """How it had ended before the request; None when it had not."""
    asked_before: str | None = None
    """The reason of an earlier request, which still counts."""
    ended: bool = False
    """It had no run yet, and ended at once. Its owner ends any other."""


_CONVERSATION: Final = select(turns.c.conversation_id).where(turns.c.id == bindparam("task"))
_TURN: Final = LOCKED_TURN.where(turns.c.id == bindparam("task"))
_STANDING: Final = select(turns.c.outcome, turns.c.stop_reason).where(turns.c.id == bindparam("task"))


async def stop_by_operator(database: Database, task_id: TaskId, turn_seconds: float) -> OperatorStop | None:
    """Record that an operator asked to stop a turn (R9); None when there is no such turn.

    The turn that this plans, if any, may take `turn_seconds`. Any process adopts it.
    """
    task = {"task": task_id}
    async with database.transaction() as connection:
        conversation_id = await connection.scalar(_CONVERSATION, task)
        if conversation_id is None or await lock_conversation(connection, conversation_id) is None:
            return None
        turn = LockedTurn(*(await connection.execute(_TURN, task)).one())
        outcome, reason = (await connection.execute(_STANDING, task)).one()
        if outcome is not None:
            return OperatorStop(ended_before=Outcome(outcome))
        await stop_turn(connection, turn, reason or REASON, turn_seconds)
    return OperatorStop(asked_before=reason, ended=Stopped.of(turn).ended)
