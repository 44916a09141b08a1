"""Forms in the rows: opened with the end of a question's turn, closed by one answer.

Every change of a form happens under the lock of its conversation, and is guarded by its state. When a
submission, a message, the expiry and a deletion meet, one of them wins, and the others see that.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import FromClause, Label, Row, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from agent_gateway.domain.human_input import FormAnswer, FormDefinition, FormState, HumanInputForm, Question
from agent_gateway.domain.ids import AppId, FormId, MessageId, TaskId, new_id
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import of_app, owned, scope_of
from agent_gateway.store.db.tables import conversations, forms, is_open, turns
from agent_gateway.store.turns.locks import LockedTurn

TOKEN_BYTES: Final = 32

_FIELDS: Final = (
    "id",
    "token",
    "message_id",
    "tool_call_id",
    "definition",
    "state",
    "expires_at",
    "result",
)


@dataclass(frozen=True, slots=True)
class FormStatus:
    """Whether a question has been answered, and by which turn."""

    form_id: FormId
    state: FormState
    answered_by: TaskId | None

    @property
    def dropped(self) -> bool:
        """True when it is closed and no turn carries the answer."""
        return self.state is not FormState.OPEN and self.answered_by is None


@dataclass(frozen=True, slots=True)
class QuestionStatus:
    """A message's turn; with the status of its form, if the turn ended with a question."""

    task_id: TaskId
    status: FormStatus | None


def form_columns(table: FromClause = forms) -> list[Label[Any]]:
    """What `form_of` reads, under names that do not collide: all but the snapshot, which may be big."""
    return [table.c[name].label(f"form_{name}") for name in _FIELDS]


def form_of(row: Row[*tuple[Any, ...]]) -> HumanInputForm:
    """The form in these columns."""
    return HumanInputForm(
        id=FormId(row.form_id),
        token=row.form_token,
        message_id=MessageId(row.form_message_id),
        tool_call_id=row.form_tool_call_id,
        definition=msgspec.json.decode(row.form_definition, type=FormDefinition),
        state=FormState(row.form_state),
        expires_at=int(row.form_expires_at.timestamp()),
        answer=msgspec.json.decode(row.form_result, type=FormAnswer) if row.form_result else None,
    )


async def open_form(
    connection: AsyncConnection, turn: LockedTurn, question: Question, seconds: float
) -> HumanInputForm:
    """Store the form of the question with which this turn ends; the caller holds the conversation's lock."""
    # There is none, unless an older release ran a turn over it.
    await cancel_form(connection, turn.conversation_id)
    opened = await connection.execute(
        _OPEN,
        {
            "id": new_id(),
            "conversation_id": turn.conversation_id,
            "turn_id": turn.id,
            "message_id": turn.message_id,
            "token": secrets.token_urlsafe(TOKEN_BYTES),
            "state": FormState.OPEN.value,
            # Without a snapshot to continue from, or a call to answer, the answer is sent as a message.
            "tool_call_id": question.tool_call_id if question.snapshot else "",
            "definition": msgspec.json.encode(question.definition).decode(),
            "snapshot": question.snapshot if question.tool_call_id else None,
            "seconds": seconds,
        },
    )
    return form_of(opened.one())


async def cancel_form(connection: AsyncConnection, conversation_id: str) -> None:
    """Cancel the conversation's open form, if there is one: nobody can answer it then."""
    await connection.execute(_CANCEL, {"conversation": conversation_id})


async def close_form(
    connection: AsyncConnection, form: HumanInputForm, answer: FormAnswer, task_id: TaskId | None
) -> HumanInputForm:
    """Store the answer of an open form, and the turn that carries it, if there is one."""
    state = FormState.SUBMITTED if answer.status == "submitted" else FormState.TIMEOUT
    result = msgspec.json.encode(answer).decode()
    closed = _CLOSE if task_id else _CLOSE.values(snapshot=None)
    await connection.execute(
        closed, {"form": form.id, "new_state": state.value, "answer": result, "task": task_id}
    )
    return replace(form, state=state, answer=answer)


async def withdraw_answer(connection: AsyncConnection, turn: LockedTurn) -> None:
    """Open the form again whose answer this turn would have carried: the turn never began."""
    await connection.execute(_REOPEN, {"form": turn.form_id})
    await connection.execute(_UNBIND, {"task": turn.id})


async def drop_question_snapshot(connection: AsyncConnection, turn: LockedTurn) -> None:
    """Delete the state in which a question was asked: the turn that carried its answer has ended."""
    await connection.execute(_DROP_SNAPSHOT, {"form": turn.form_id, "task": turn.id})


async def forms_of(session: AsyncSession, message_ids: Sequence[str]) -> dict[str, HumanInputForm]:
    """The forms of the questions among these messages."""
    found = await session.execute(select(*form_columns()).where(forms.c.message_id.in_(message_ids)))
    return {row.form_message_id: form_of(row) for row in found}


async def forms_of_turn(
    session: AsyncSession, task_id: str, form_id: str | None
) -> tuple[HumanInputForm | None, HumanInputForm | None]:
    """The form with which a turn ended, and the one whose answer it carried."""
    found = await session.execute(
        select(*form_columns(), forms.c.turn_id).where(
            or_(forms.c.turn_id == task_id, forms.c.id == form_id) if form_id else forms.c.turn_id == task_id
        )
    )
    rows = {row.turn_id == task_id: form_of(row) for row in found}
    return rows.get(True), rows.get(False)


class FormStore:
    """Reads of forms."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, app_id: AppId, token: str) -> HumanInputForm | None:
        """The form of this app with this token; None also for a cancelled one."""
        async with self._database.reading() as session:
            row = (await session.execute(FORM_BY_TOKEN, {"app": app_id, "token": token})).first()
        return form_of(row) if row else None

    async def question(self, app_id: AppId, user: str, message_id: str) -> QuestionStatus | None:
        """The turn of a message of this app and user, with the status of its question; None for others."""
        async with self._database.reading() as session:
            row = (await session.execute(_ASKED, scope_of(app_id, user) | {"message": message_id})).first()
        if row is None:
            return None
        status = None
        if row.id:
            status = FormStatus(FormId(row.id), FormState(row.state), _task(row.answered_by))
        return QuestionStatus(TaskId(row.task_id), status)

    async def statuses(self, form_ids: Sequence[FormId]) -> dict[FormId, FormStatus]:
        """The status of these forms, in one query for all forms that a process waits for."""
        async with self._database.reading() as session:
            rows = await session.execute(
                select(forms.c.id, forms.c.state, forms.c.answered_by).where(forms.c.id.in_(form_ids))
            )
            return {
                FormId(form_id): FormStatus(FormId(form_id), FormState(state), _task(answered_by))
                for form_id, state, answered_by in rows
            }


def _task(text: str | None) -> TaskId | None:
    return TaskId(text) if text else None


_NEW = insert(forms).values(
    created_at=now_plus(),
    expires_at=now_plus(bindparam("seconds")),
    **{
        name: bindparam(name)
        for name in (
            "id",
            "conversation_id",
            "turn_id",
            "message_id",
            "token",
            "state",
            "tool_call_id",
            "definition",
            "snapshot",
        )
    },
)
_OPEN = _NEW.returning(*form_columns())
_CANCEL = (
    update(forms)
    .where(forms.c.conversation_id == bindparam("conversation"), is_open(forms))
    .values(state=FormState.CANCELLED.value, snapshot=None)
)
_CLOSE = (
    update(forms)
    .where(forms.c.id == bindparam("form"), is_open(forms))
    .values(state=bindparam("new_state"), result=bindparam("answer"), answered_by=bindparam("task"))
)
_REOPEN = (
    update(forms)
    .where(forms.c.id == bindparam("form"), forms.c.state == FormState.SUBMITTED.value)
    .values(state=FormState.OPEN.value, result=None, answered_by=None)
)
_DROP_SNAPSHOT = (
    update(forms)
    .where(forms.c.id == bindparam("form"), forms.c.answered_by == bindparam("task"))
    .values(snapshot=None)
)
_UNBIND = update(turns).where(turns.c.id == bindparam("task")).values(form_id=None)
FORM_BY_TOKEN: Final = (
    select(*form_columns(), forms.c.conversation_id, forms.c.turn_id)
    .join(conversations, conversations.c.id == forms.c.conversation_id)
    .where(
        forms.c.token == bindparam("token"),
        forms.c.state != FormState.CANCELLED.value,
        of_app(conversations),
    )
)
_ASKED = (
    select(turns.c.id.label("task_id"), forms.c.id, forms.c.state, forms.c.answered_by)
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .outerjoin(forms, forms.c.turn_id == turns.c.id)
    .where(turns.c.message_id == bindparam("message"), owned(conversations))
)
OPEN_FORM: Final = select(*form_columns()).where(
    forms.c.conversation_id == bindparam("conversation"), is_open(forms)
)
