"""Conversations and messages as their owner lists them. Every query is scoped to app and user (I11)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec
from sqlalchemy import ColumnElement, Row, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped
from sqlmodel import col

from agent_gateway.domain.files import InputFile, StoredFile
from agent_gateway.domain.human_input import HumanInputForm
from agent_gateway.domain.ids import ConversationId, MessageId, Rating, TaskId
from agent_gateway.domain.turns import Caller, Outcome, Step, Usage
from agent_gateway.errors import NotFound
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import octets_of, octets_of_rows
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import (
    ConversationRow,
    MessageRow,
    TurnRow,
    conversations,
    feedbacks,
    forms,
    messages,
    steps,
    turns,
)
from agent_gateway.store.files import read_artifacts
from agent_gateway.store.pages import fitting
from agent_gateway.store.question_forms import forms_of
from agent_gateway.store.turns.inputs import all_inputs, asking_messages, refers, stored_inputs
from agent_gateway.store.turns.rows import read_steps

T = TypeVar("T")
SortBy = Literal["created_at", "-created_at", "updated_at", "-updated_at"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as listed."""

    id: str
    name: str
    inputs: dict[str, Any]
    introduction: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A turn as listed: query, answer so far stored, and how it ended."""

    id: str
    conversation_id: str
    query: str
    inputs: dict[str, Any]
    files: Sequence[InputFile]
    """What came with the query."""
    made_files: Sequence[StoredFile]
    """What the agent made."""
    answer: str
    usage: Usage | None
    outcome: Outcome | None
    error_code: str | None
    steps: Sequence[Step]
    rating: Rating | None
    created_at: datetime
    form: HumanInputForm | None
    """The form of the question with which its turn ended."""


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The questions that may follow on a message."""

    task_id: TaskId
    """The message's turn."""
    outcome: Outcome | None
    questions: list[str] | None
    """None until they were made."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    has_more: bool


class ConversationStore:
    """Lists of what one caller owns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def conversations(
        self, caller: Caller, *, limit: int, sort_by: SortBy, last_id: str | None = None
    ) -> Page[Conversation]:
        """A page of conversations after `last_id` in that order; NotFound for an unknown one."""
        descending = sort_by.startswith("-")
        key = col(getattr(ConversationRow, sort_by.removeprefix("-")))
        scope = scope_of(caller.app.id, caller.user)
        async with self._database.reading() as session:
            query = _OWNED
            if last_id:
                last = _OWNED.where(col(ConversationRow.id) == last_id)
                last = last.with_only_columns(col(ConversationRow.id))
                if (await session.scalars(last, scope)).first() is None:
                    raise NotFound("Last Conversation Not Exists.")
                # As the database has it: SQLite keeps its times more finely than a datetime does.
                stored = conversations.alias()
                value = select(stored.c[sort_by.removeprefix("-")]).where(stored.c.id == last_id)
                query = query.where(
                    _beyond(key, value.scalar_subquery(), col(ConversationRow.id), last_id, descending)
                )
            order = (
                [key.desc(), col(ConversationRow.id).desc()] if descending else [key, col(ConversationRow.id)]
            )
            sized = (
                query.with_only_columns(col(ConversationRow.id), _SHOWN_CONVERSATION)
                .order_by(*order)
                .limit(limit + 1)
            )
            found = (await session.execute(sized, scope)).all()
            ids = fitting(found, limit)
            rows = await session.scalars(
                select(ConversationRow).where(col(ConversationRow.id).in_(ids)).order_by(*order)
            )
            items = [_conversation(row) for row in rows]
        return Page(items, len(found) > len(ids))

    async def messages(
        self, caller: Caller, conversation_id: ConversationId, *, limit: int, first_id: str | None = None
    ) -> Page[Message]:
        """The newest messages, or those before `first_id`, in ascending order of time."""
        async with self._database.reading() as session:
            kept = await _require(session, caller, conversation_id)
            sized = _SIZED_MESSAGES.where(messages.c.conversation_id == conversation_id)
            if first_id:
                sized = sized.where(messages.c.seq < await _seq_of(session, conversation_id, first_id))
            found = (await session.execute(sized.limit(limit + 1))).all()
            ids = fitting(found, limit)
            page = (await session.execute(_MESSAGES.where(messages.c.id.in_(ids)))).all()
            shown_steps, asked = await read_steps(session, ids), await forms_of(session, ids)
            made = await read_artifacts(session, page)
        items = [
            _message(row, kept, shown_steps.get(row.id, []), made.get(row.id, []), asked.get(row.id))
            for row in page
        ]
        return Page(items, len(found) > len(ids))

    async def require(self, caller: Caller, conversation_id: ConversationId) -> None:
        """Raise NotFound unless this is a conversation of the caller's."""
        async with self._database.reading() as session:
            await _require(session, caller, conversation_id)

    async def rename(self, caller: Caller, conversation_id: ConversationId, name: str) -> Conversation:
        """Give a conversation a name, which the app will not change any more; NotFound."""
        mine, scope = conversations.c.id == conversation_id, scope_of(caller.app.id, caller.user)
        async with self._database.transaction() as connection:
            renamed = update(conversations).where(mine, owned(conversations))
            await connection.execute(renamed.values(name=name, naming="closed"), scope)
        async with self._database.reading() as session:
            row = (await session.scalars(_OWNED.where(mine), scope)).first()
        if row is None:
            raise NotFound("Conversation Not Exists.")
        return _conversation(row)

    async def suggestions(self, caller: Caller, message_id: MessageId) -> Suggestions:
        """The suggested questions of a message; NotFound."""
        async with self._database.reading() as session:
            found = await session.execute(
                select(col(TurnRow.id), col(TurnRow.outcome), col(MessageRow.suggestions))
                .join(MessageRow, col(MessageRow.id) == col(TurnRow.message_id))
                .join(conversations, conversations.c.id == col(MessageRow.conversation_id))
                .where(
                    col(MessageRow.id) == message_id,
                    owned(conversations),
                ),
                scope_of(caller.app.id, caller.user),
            )
            row = found.first()
        if row is None:
            raise NotFound("Message Not Exists.")
        task_id, outcome, questions = row
        return Suggestions(TaskId(task_id), Outcome(outcome) if outcome else None, questions)


async def _require(session: AsyncSession, caller: Caller, conversation_id: ConversationId) -> dict[str, Any]:
    """The inputs of this caller's conversation; NotFound."""
    owned = await session.scalars(
        _OWNED.where(col(ConversationRow.id) == conversation_id).with_only_columns(
            col(ConversationRow.inputs)
        ),
        scope_of(caller.app.id, caller.user),
    )
    inputs: dict[str, Any] | None = owned.first()
    if inputs is None:
        raise NotFound("Conversation Not Exists.")
    return inputs


def _beyond(
    key: Mapped[Any], value: object, id_column: Mapped[str], last_id: str, descending: bool
) -> ColumnElement[bool]:
    if descending:
        return or_(key < value, and_(key == value, id_column < last_id))
    return or_(key > value, and_(key == value, id_column > last_id))


async def _seq_of(session: AsyncSession, conversation_id: str, message_id: str) -> int:
    found = await session.scalars(
        select(col(MessageRow.seq)).where(
            col(MessageRow.id) == message_id, col(MessageRow.conversation_id) == conversation_id
        )
    )
    if (seq := found.first()) is None:
        raise NotFound("First Message Not Exists.")
    return seq


def _conversation(row: ConversationRow) -> Conversation:
    return Conversation(row.id, row.name, row.inputs, row.introduction, row.created_at, row.updated_at)


def _message(
    row: Row[*tuple[Any, ...]],
    kept: Mapping[str, Any],
    steps: Sequence[Step],
    made_files: Sequence[StoredFile],
    form: HumanInputForm | None,
) -> Message:
    return Message(
        id=row.id,
        conversation_id=row.conversation_id,
        query=row.query,
        inputs=all_inputs(kept, row.inputs),
        files=msgspec.convert(row.files, list[InputFile]),
        made_files=made_files,
        answer=row.answer,
        usage=msgspec.convert(row.usage, Usage) if row.usage else None,
        outcome=Outcome(row.outcome) if row.outcome else None,
        error_code=row.error_code,
        steps=steps,
        rating=cast("Rating | None", row.rating),
        created_at=row.created_at,
        form=form,
    )


_OWNED = select(ConversationRow).where(owned(conversations))
_SHOWN_CONVERSATION = octets_of(conversations.c.name, conversations.c.inputs, conversations.c.introduction)
_SHOWN_STEPS = (
    select(octets_of_rows(steps.c.thought, steps.c.tool_input, steps.c.observation))
    .where(steps.c.message_id == messages.c.id)
    .scalar_subquery()
)
_SHOWN_FORM = (
    select(octets_of_rows(forms.c.definition, forms.c.result))
    .where(forms.c.message_id == messages.c.id)
    .scalar_subquery()
)
_SIZED_MESSAGES = (
    select(
        messages.c.id,
        octets_of(
            messages.c.query,
            messages.c.answer,
            messages.c.files,
            messages.c.linked_files,
            conversations.c.inputs,
            stored_inputs(),
        )
        + _SHOWN_STEPS
        + _SHOWN_FORM,
    )
    .join(conversations, conversations.c.id == messages.c.conversation_id)
    .outerjoin(asking_messages, refers())
    .order_by(messages.c.seq.desc())
)
"""The newest messages, each with the bytes that are shown of it."""
_MESSAGES = (
    select(
        messages.c.id,
        messages.c.conversation_id,
        messages.c.query,
        stored_inputs().label("inputs"),
        messages.c.files,
        messages.c.linked_files,
        messages.c.answer,
        messages.c.usage,
        messages.c.created_at,
        turns.c.outcome,
        turns.c.error_code,
        feedbacks.c.rating,
    )
    .join(turns, turns.c.message_id == messages.c.id)
    .outerjoin(feedbacks, feedbacks.c.message_id == messages.c.id)
    .outerjoin(asking_messages, refers())
    .order_by(messages.c.seq)
)
