"""Turns with their answers: what the small runs that come after a turn are told."""

from sqlalchemy import ColumnElement, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.ids import ConversationId, TaskId
from agent_gateway.domain.turns import AnsweredTurn, Caller
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, messages, turns
from agent_gateway.store.turns.adopt import read_turns
from agent_gateway.store.turns.new_turn import OwnerContext


async def read_exchanges(
    connection: AsyncConnection, terms: OwnerContext, *which: ColumnElement[bool]
) -> dict[TaskId, AnsweredTurn]:
    """Turns with their answers, by task id."""
    found = await read_turns(connection, terms, *which)
    ids = [turn.message_id for turn in found]
    rows = await connection.execute(select(messages.c.id, messages.c.answer).where(messages.c.id.in_(ids)))
    answers = {row.id: row.answer for row in rows}
    return {turn.task_id: AnsweredTurn(turn, answers[turn.message_id]) for turn in found}


async def first_answered_turn(
    database: Database, terms: OwnerContext, caller: Caller, conversation_id: ConversationId
) -> AnsweredTurn | None:
    """How a conversation of this caller began; None when there is no such conversation."""
    scope = scope_of(caller.app.id, caller.user) | {"conversation": conversation_id}
    async with database.reading() as session:
        task_id = await session.scalar(_FIRST_TURN, scope)
        if task_id is None:
            return None
        found = await read_exchanges(await session.connection(), terms, turns.c.id == task_id)
    return found.get(TaskId(task_id))


_FIRST_TURN = (
    select(turns.c.id)
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .where(conversations.c.id == bindparam("conversation"), owned(conversations))
    .order_by(turns.c.seq)
    .limit(1)
)
