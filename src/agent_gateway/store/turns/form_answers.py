"""Answers to forms: a human submits one, or nobody does in time. Each begins the conversation's next turn."""

import logging
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import read_config
from agent_gateway.domain.form_rules import TIMED_OUT, answer_of, query_of
from agent_gateway.domain.human_input import FormAnswer, FormState, Submission
from agent_gateway.domain.ids import AppId, AppVersionId, ConversationId, MessageId, TaskId, new_id
from agent_gateway.domain.turns import Trace, Turn, TurnState
from agent_gateway.errors import FormExpired, FormSubmitted, NotFound
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.tables import (
    app_versions,
    conversations,
    forms,
    is_active,
    is_open,
    messages,
    turns,
)
from agent_gateway.store.question_forms import FORM_BY_TOKEN, close_form, form_columns, form_of
from agent_gateway.store.turns.adopt import read_turns
from agent_gateway.store.turns.new_turn import NewTurn, OwnerContext, insert_turn
from agent_gateway.store.turns.results import lock_conversation

logger = logging.getLogger(__name__)

EXPIRED: Final = 20
"""Forms that expire in one transaction."""


async def submit(
    database: Database, terms: OwnerContext, app_id: AppId, token: str, submission: Submission
) -> Turn:
    """Store what a human answered and begin the turn that carries it, in one transaction.

    The turn is `planned` and ours to run, or `queued` behind an active one. Raises NotFound, FormSubmitted,
    FormExpired, and InvalidParam for a submission that does not fit the form, which stays open.
    """
    scope = {"app": app_id, "token": token}
    async with database.transaction() as connection:
        row = (await connection.execute(FORM_BY_TOKEN, scope)).first()
        if row is None:
            raise NotFound("Form not found.")
        await lock_conversation(connection, row.conversation_id)
        # Read again: now nobody can change it any more.
        row = (await connection.execute(_LOCKED, {"form": row.form_id})).one()
        match FormState(row.form_state):
            case FormState.SUBMITTED:
                raise FormSubmitted
            case FormState.TIMEOUT:
                raise FormExpired
            case FormState.CANCELLED:
                raise NotFound("Form not found.")
            case FormState.OPEN if row.form_expires_at <= row.now:
                raise FormExpired
            case FormState.OPEN:
                answer = answer_of(form_of(row).definition, submission)
        task_id = await _begin(connection, terms, row, answer, terms.owner)
        (turn,) = await read_turns(connection, terms, turns.c.id == task_id)
        return turn


async def expire(database: Database, terms: OwnerContext) -> tuple[int, bool]:
    """Close forms whose time has come, and begin the turns that tell their runs so, for anyone to adopt.

    Returns how many forms were closed, and whether there are turns now that are nobody's.
    """
    async with database.transaction("duty") as connection:
        # The conversations are locked, as everywhere before their forms; who is busy with one decides.
        found = await connection.scalars(_EXPIRED)
        conversation_ids = list(found)
        begun = False
        for conversation_id in conversation_ids:
            row = (await connection.execute(_STILL_EXPIRED, {"conversation": conversation_id})).first()
            if row is None:
                continue
            if _continues(row):
                await _begin(connection, terms, row, TIMED_OUT, None)
                begun = True
            else:
                await close_form(connection, form_of(row), TIMED_OUT, None)
    return len(conversation_ids), begun


def _continues(row: Row[*tuple[Any, ...]]) -> bool:
    try:
        return read_config(row.config).on_question_expired == "continue"
    except ValidationError:
        logger.error("form %s: the configuration of its app can not be read by this release", row.form_id)
        return False


async def _begin(
    connection: AsyncConnection,
    terms: OwnerContext,
    asked: Row[*tuple[Any, ...]],
    answer: FormAnswer,
    owner: str | None,
) -> TaskId:
    """Close the form with this answer, and write the turn that carries it.

    It goes on as the question's turn began: same version of the app, same inputs, same trace.
    """
    task_id = TaskId(new_id())
    form = await close_form(connection, form_of(asked), answer, task_id)
    scope = {"conversation": asked.conversation_id}
    place = (await connection.execute(_NEXT_SEQ, scope)).one()
    busy = await connection.scalar(_ACTIVE_TURN, scope) is not None
    new = NewTurn(
        task_id=task_id,
        conversation_id=ConversationId(asked.conversation_id),
        app_version_id=AppVersionId(asked.app_version_id),
        seq=place.last_seq,
        query=query_of(form.definition, answer),
        inputs={},
        files=[],
        state=TurnState.QUEUED if busy else TurnState.PLANNED,
        owner=None if busy else owner,
        form_id=form.id,
        inputs_of=MessageId(asked.inputs_of or asked.form_message_id),
        trace=Trace(asked.trace_id or "", asked.trace_session_id or ""),
    )
    await insert_turn(connection, terms, new, place.updated_at)
    return task_id


_FORM = (
    select(
        *form_columns(),
        forms.c.conversation_id,
        turns.c.app_version_id,
        turns.c.trace_id,
        turns.c.trace_session_id,
        messages.c.inputs_of,
        app_versions.c.config,
        now_plus().label("now"),
    )
    .join(turns, turns.c.id == forms.c.turn_id)
    .join(messages, messages.c.id == forms.c.message_id)
    .join(app_versions, app_versions.c.id == turns.c.app_version_id)
    .with_for_update(of=forms)
)
_LOCKED = _FORM.where(forms.c.id == bindparam("form"))
_EXPIRED = (
    select(conversations.c.id)
    .join(forms, forms.c.conversation_id == conversations.c.id)
    .where(is_open(forms), forms.c.expires_at <= now_plus())
    .order_by(forms.c.expires_at)
    .limit(EXPIRED)
    .with_for_update(of=conversations, skip_locked=True)
)
_STILL_EXPIRED = _FORM.where(
    forms.c.conversation_id == bindparam("conversation"), is_open(forms), forms.c.expires_at <= now_plus()
)
_ACTIVE_TURN = select(turns.c.id).where(
    turns.c.conversation_id == bindparam("conversation"), is_active(turns)
)
_NEXT_SEQ = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(last_seq=conversations.c.last_seq + 1, updated_at=now_plus())
    .returning(conversations.c.last_seq, conversations.c.updated_at)
)
