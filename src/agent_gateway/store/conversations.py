"""Conversations as their end user lists and names them (I11: every statement is scoped to its caller)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import ColumnElement, and_, bindparam, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.domain.ids import ConversationId
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import NotFound
from agent_gateway.json_types import JsonObject
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import octets_of
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations
from agent_gateway.store.pages import PAGE_BYTES, Page, fitting

SortBy = Literal["created_at", "-created_at", "updated_at", "-updated_at"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as listed."""

    id: str
    name: str
    inputs: JsonObject
    introduction: str
    created_at: datetime
    updated_at: datetime


_CONVERSATION: Final = select(*(conversations.c[name] for name in Conversation.__dataclass_fields__))
_ONE: Final = _CONVERSATION.where(conversations.c.id == bindparam("conversation"), owned(conversations))
_INPUTS: Final = select(conversations.c.inputs).where(
    conversations.c.id == bindparam("conversation"), owned(conversations)
)
_RENAME: Final = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), owned(conversations))
    .values(name=bindparam("new_name"), naming="closed")
)
_SIZED: Final = select(
    conversations.c.id,
    octets_of(conversations.c.name, conversations.c.inputs, conversations.c.introduction),
).where(owned(conversations))
"""The caller's conversations, each with the bytes that a list shows of it."""


class ConversationStore:
    """Conversations of one caller."""

    def __init__(self, database: Database, page_bytes: int = PAGE_BYTES) -> None:
        self._database = database
        self._page_bytes = page_bytes

    async def page(
        self, caller: Caller, *, limit: int, sort_by: SortBy, last_id: str | None = None
    ) -> Page[Conversation]:
        """A page of conversations after `last_id` in that order; NotFound for an unknown one."""
        name, descending = sort_by.removeprefix("-"), sort_by.startswith("-")
        columns = conversations.c[name], conversations.c.id
        order = [column.desc() if descending else column.asc() for column in columns]
        query, scope = _SIZED.order_by(*order), scope_of(caller.app.id, caller.user)
        async with self._database.reading() as session:
            if last_id:
                await _require_last(session, caller, last_id)
                query = query.where(_beyond(name, last_id, descending))
            found = (await session.execute(query.limit(limit + 1), scope)).all()
            ids = fitting(found, limit, self._page_bytes)
            rows = await session.execute(_CONVERSATION.where(conversations.c.id.in_(ids)).order_by(*order))
            items = [Conversation(*row) for row in rows]
        return Page(items, len(found) > len(ids))

    async def require(self, caller: Caller, conversation_id: ConversationId) -> None:
        """Raise NotFound unless this is a conversation of the caller's."""
        async with self._database.reading() as session:
            await require_inputs(session, caller, conversation_id)

    async def rename(self, caller: Caller, conversation_id: ConversationId, name: str) -> Conversation:
        """Give a conversation a name that the app does not change again. Raises NotFound."""
        scope = scope_of(caller.app.id, caller.user) | {"conversation": conversation_id}
        async with self._database.transaction() as connection:
            await connection.execute(_RENAME, scope | {"new_name": name})
        async with self._database.reading() as session:
            row = (await session.execute(_ONE, scope)).first()
        if row is None:
            raise NotFound("Conversation Not Exists.")
        return Conversation(*row)


async def require_inputs(
    session: AsyncSession, caller: Caller, conversation_id: ConversationId
) -> JsonObject:
    """The inputs of this caller's conversation. Raises NotFound."""
    scope = scope_of(caller.app.id, caller.user) | {"conversation": conversation_id}
    inputs: JsonObject | None = await session.scalar(_INPUTS, scope)
    if inputs is None:
        raise NotFound("Conversation Not Exists.")
    return inputs


async def _require_last(session: AsyncSession, caller: Caller, last_id: str) -> None:
    scope = scope_of(caller.app.id, caller.user) | {"conversation": last_id}
    if (await session.execute(_ONE, scope)).first() is None:
        raise NotFound("Last Conversation Not Exists.")


def _beyond(name: str, last_id: str, descending: bool) -> ColumnElement[bool]:
    """Conversations after this one in the order of that column."""
    # Compared within the database: SQLite stores its times more finely than a datetime does.
    last = conversations.alias()
    value = select(last.c[name]).where(last.c.id == last_id).scalar_subquery()
    column, id_column = conversations.c[name], conversations.c.id
    if descending:
        return or_(column < value, and_(column == value, id_column < last_id))
    return or_(column > value, and_(column == value, id_column > last_id))
