"""The locks of every write about turns, in their order: the conversation, then its turn (R10)."""

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.ids import ConversationId, TaskId
from agent_gateway.domain.turns import Caller
from agent_gateway.json_types import JsonObject
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, is_active, turns


class LockedConversation(NamedTuple):
    """A conversation whose row is locked."""

    id: str
    deleted_at: datetime | None
    naming: str


class LockedTurn(NamedTuple):
    """A turn whose row is locked, as it was before this write."""

    id: str
    conversation_id: str
    message_id: str
    seq: int
    state: str
    run_id: str | None
    form_id: str | None
    """The form whose answer the turn carries."""
    stop_at: datetime | None


LOCKED_TURN: Final = select(*(turns.c[name] for name in LockedTurn._fields)).with_for_update()
"""Add the condition. The caller holds the conversation's lock."""

_LOCK_CONVERSATION: Final = (
    select(*(conversations.c[name] for name in LockedConversation._fields))
    .where(conversations.c.id == bindparam("conversation"))
    .with_for_update()
)


async def lock_conversation(connection: AsyncConnection, conversation_id: str) -> LockedConversation | None:
    """Lock a conversation's row: the first lock of every write about its turns (R10).

    None when it was removed: then its turns are gone, too (R18).
    """
    row = (await connection.execute(_LOCK_CONVERSATION, {"conversation": conversation_id})).first()
    return None if row is None else LockedConversation(*row)


_LOCK_OF_CALLER: Final = _LOCK_CONVERSATION.where(owned(conversations))


async def lock_conversation_of(
    connection: AsyncConnection, caller: Caller, conversation_id: ConversationId
) -> None:
    """Lock a conversation of this caller, if it exists."""
    scope = scope_of(caller.app.id, caller.user)
    await connection.execute(_LOCK_OF_CALLER, scope | {"conversation": conversation_id})


class NumberedConversation(NamedTuple):
    """A conversation that has just given its next turn a number, and so is locked."""

    last_seq: int
    """The number."""
    updated_at: datetime
    """Now, by the database's clock."""
    app_version_id: str | None
    inputs: JsonObject


NEXT_SEQ: Final = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(last_seq=conversations.c.last_seq + 1, updated_at=now_plus())
    .returning(*(conversations.c[name] for name in NumberedConversation._fields))
)
"""Gives a conversation's next turn its number: makes a NumberedConversation."""

_ACTIVE_TURN: Final = select(turns.c.id).where(
    turns.c.conversation_id == bindparam("conversation"), is_active(turns)
)


async def active_turn(connection: AsyncConnection, conversation_id: str) -> TaskId | None:
    """The active turn of a locked conversation, if it has one."""
    task_id = await connection.scalar(_ACTIVE_TURN, {"conversation": conversation_id})
    return TaskId(task_id) if task_id else None
