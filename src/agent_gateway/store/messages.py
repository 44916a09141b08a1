"""Messages as their end user lists them, and the questions that may follow them (I11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.domain.files import InputFile, StoredFile
from agent_gateway.domain.human_input import HumanInputForm
from agent_gateway.domain.ids import ConversationId, MessageId, Rating, TaskId
from agent_gateway.domain.turns import Caller, Outcome, Step, Usage
from agent_gateway.errors import NotFound
from agent_gateway.json_types import JsonObject
from agent_gateway.store.conversations import require_inputs
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import octets_of, octets_of_rows
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, feedbacks, forms, messages, steps, turns
from agent_gateway.store.message_files import read_artifacts
from agent_gateway.store.pages import PAGE_BYTES, Page, fitting
from agent_gateway.store.question_forms import forms_of
from agent_gateway.store.turns.inputs import all_inputs, asking_messages, refers, stored_inputs
from agent_gateway.store.turns.rows import read_steps


@dataclass(frozen=True, slots=True)
class Message:
    """A turn as listed: query, answer so far stored, and how it ended."""

    id: str
    conversation_id: str
    query: str
    inputs: JsonObject
    files: Sequence[InputFile]
    """What came with the query."""
    artifacts: Sequence[StoredFile]
    """What the agent made."""
    answer: str
    usage: Usage | None
    finish_reason: str | None
    task_id: TaskId
    outcome: Outcome | None
    """None while its turn runs or waits."""
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


class _MessageRow(NamedTuple):
    """A row of `_MESSAGES`, in the order of its columns."""

    id: str
    conversation_id: str
    query: str
    inputs: JsonObject
    files: list[JsonObject]
    linked_files: list[JsonObject] | None
    answer: str
    usage: JsonObject | None
    finish_reason: str | None
    created_at: datetime
    task_id: str
    outcome: str | None
    error_code: str | None
    rating: Rating | None


_MESSAGES: Final = (
    select(
        messages.c.id,
        messages.c.conversation_id,
        messages.c.query,
        stored_inputs().label("inputs"),
        messages.c.files,
        messages.c.linked_files,
        messages.c.answer,
        messages.c.usage,
        messages.c.finish_reason,
        messages.c.created_at,
        turns.c.id.label("task_id"),
        turns.c.outcome,
        turns.c.error_code,
        feedbacks.c.rating,
    )
    .join(turns, turns.c.message_id == messages.c.id)
    .outerjoin(feedbacks, feedbacks.c.message_id == messages.c.id)
    .outerjoin(asking_messages, refers())
    .order_by(messages.c.seq)
)
_STEP_BYTES: Final = (
    select(octets_of_rows(steps.c.thought, steps.c.tool_input, steps.c.observation))
    .where(steps.c.message_id == messages.c.id)
    .scalar_subquery()
)
_FORM_BYTES: Final = (
    select(octets_of_rows(forms.c.definition, forms.c.result))
    .where(forms.c.message_id == messages.c.id)
    .scalar_subquery()
)
_SIZED: Final = (
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
        + _STEP_BYTES
        + _FORM_BYTES,
    )
    .join(conversations, conversations.c.id == messages.c.conversation_id)
    .outerjoin(asking_messages, refers())
    .where(messages.c.conversation_id == bindparam("conversation"))
    .order_by(messages.c.seq.desc())
)
"""The newest messages, each with the bytes that a list shows of it."""
_SEQ: Final = select(messages.c.seq).where(
    messages.c.id == bindparam("message"), messages.c.conversation_id == bindparam("conversation")
)
_SUGGESTIONS: Final = (
    select(turns.c.id, turns.c.outcome, messages.c.suggestions)
    .join(messages, messages.c.id == turns.c.message_id)
    .join(conversations, conversations.c.id == messages.c.conversation_id)
    .where(messages.c.id == bindparam("message"), owned(conversations))
)


class MessageStore:
    """Messages of one caller."""

    def __init__(self, database: Database, page_bytes: int = PAGE_BYTES) -> None:
        self._database = database
        self._page_bytes = page_bytes

    async def page(
        self, caller: Caller, conversation_id: ConversationId, *, limit: int, first_id: str | None = None
    ) -> Page[Message]:
        """The newest messages, or those before `first_id`, in ascending order of time. Raises NotFound."""
        async with self._database.reading() as session:
            shared = await require_inputs(session, caller, conversation_id)
            sized = _SIZED.limit(limit + 1)
            if first_id:
                sized = sized.where(messages.c.seq < await _seq_of(session, conversation_id, first_id))
            found = (await session.execute(sized, {"conversation": conversation_id})).all()
            ids = fitting(found, limit, self._page_bytes)
            result = await session.execute(_MESSAGES.where(messages.c.id.in_(ids)))
            rows = [_MessageRow(*row) for row in result]
            steps_of, form_of = await read_steps(session, ids), await forms_of(session, ids)
            artifacts = await read_artifacts(session, {row.id: row.linked_files for row in rows})
        items = [
            _message(row, shared, steps_of.get(row.id, []), artifacts.get(row.id, []), form_of.get(row.id))
            for row in rows
        ]
        return Page(items, len(found) > len(ids))

    async def suggestions(self, caller: Caller, message_id: MessageId) -> Suggestions:
        """The suggested questions of a message. Raises NotFound."""
        scope = scope_of(caller.app.id, caller.user) | {"message": message_id}
        async with self._database.reading() as session:
            row = (await session.execute(_SUGGESTIONS, scope)).first()
        if row is None:
            raise NotFound("Message Not Exists.")
        task_id, outcome, questions = row
        return Suggestions(TaskId(task_id), Outcome(outcome) if outcome else None, questions)


async def _seq_of(session: AsyncSession, conversation_id: str, message_id: str) -> int:
    seq: int | None = await session.scalar(_SEQ, {"message": message_id, "conversation": conversation_id})
    if seq is None:
        raise NotFound("First Message Not Exists.")
    return seq


def _message(
    row: _MessageRow,
    shared: JsonObject,
    steps: Sequence[Step],
    artifacts: Sequence[StoredFile],
    form: HumanInputForm | None,
) -> Message:
    return Message(
        id=row.id,
        conversation_id=row.conversation_id,
        query=row.query,
        inputs=all_inputs(shared, row.inputs),
        files=msgspec.convert(row.files, list[InputFile]),
        artifacts=artifacts,
        answer=row.answer,
        usage=msgspec.convert(row.usage, Usage) if row.usage else None,
        finish_reason=row.finish_reason,
        task_id=TaskId(row.task_id),
        outcome=Outcome(row.outcome) if row.outcome else None,
        error_code=row.error_code,
        steps=steps,
        rating=row.rating,
        created_at=row.created_at,
        form=form,
    )
