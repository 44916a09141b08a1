"""Answers to forms: a human submits one, or the form expires. Each begins the conversation's next turn."""

import logging
from dataclasses import replace
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import read_config_or_none
from agent_gateway.apps.policy import continues_after_expiry
from agent_gateway.domain.form_rules import TIMED_OUT, answer_of, query_of
from agent_gateway.domain.human_input import FormAnswer, FormState, Submission
from agent_gateway.domain.ids import AppId, AppVersionId, ConversationId, MessageId, TaskId, new_id
from agent_gateway.domain.turns import NO_TRACE, Trace, TurnState
from agent_gateway.errors import FormAlreadySubmitted, FormExpired, NotFound
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import app_versions, conversations, forms, is_open, messages, turns
from agent_gateway.store.question_forms import FORM_BY_TOKEN, close_form, form_columns, form_of
from agent_gateway.store.turns.locks import NEXT_SEQ, NumberedConversation, active_turn, lock_conversation
from agent_gateway.store.turns.rows import DbRow, NewTurn, OwnerContext, insert_turn

logger = logging.getLogger(__name__)

EXPIRY_BATCH: Final = 20
"""Forms that expire in one transaction."""

_FORM: Final = (
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
_FORM_BY_ID: Final = _FORM.where(forms.c.id == bindparam("form"))


async def submit_form(
    connection: AsyncConnection,
    context: OwnerContext,
    app_id: AppId,
    token: str,
    submission: Submission,
    trace: Trace,
) -> TaskId:
    """Store what a human answered and begin the turn that carries it; returns the turn's id.

    `trace` is that of the request; the client's own ids are those of the turn that asked.

    Raises NotFound, FormAlreadySubmitted, FormExpired, and InvalidParam for a submission that does not fit
    the form, which stays open.
    """
    row = (await connection.execute(FORM_BY_TOKEN, {"app": app_id, "token": token})).first()
    if row is None:
        raise NotFound("Form not found.")
    if await lock_conversation(connection, row.conversation_id) is None:
        raise NotFound("Form not found.")
    # Read again: only now no other transaction can change it.
    row = (await connection.execute(_FORM_BY_ID, {"form": row.form_id})).one()
    match FormState(row.form_state):
        case FormState.SUBMITTED:
            raise FormAlreadySubmitted
        case FormState.TIMEOUT:
            raise FormExpired
        case FormState.CANCELLED:
            raise NotFound("Form not found.")
        case FormState.OPEN if row.form_expires_at <= row.now:
            raise FormExpired
        case FormState.OPEN:
            answer = answer_of(form_of(row).definition, submission)
    return await _begin(connection, context, row, answer, context.owner, trace)


_EXPIRED: Final = (
    select(conversations.c.id)
    .join(forms, forms.c.conversation_id == conversations.c.id)
    .where(is_open(forms), forms.c.expires_at <= now_plus())
    .order_by(forms.c.expires_at)
    .limit(EXPIRY_BATCH)
    .with_for_update(of=conversations, skip_locked=True)
)
_STILL_EXPIRED: Final = _FORM.where(
    forms.c.conversation_id == bindparam("conversation"), is_open(forms), forms.c.expires_at <= now_plus()
)


async def expire_batch(connection: AsyncConnection, context: OwnerContext) -> tuple[int, bool]:
    """Close up to EXPIRY_BATCH expired forms, and begin the turns that tell their runs so.

    Returns how many forms were closed, and whether there are turns now that any process may adopt.
    """
    # The conversations are locked before their forms, as everywhere. One that another transaction has
    # locked is skipped: that transaction decides about the form.
    conversation_ids = list(await connection.scalars(_EXPIRED))
    begun = False
    for conversation_id in conversation_ids:
        row = (await connection.execute(_STILL_EXPIRED, {"conversation": conversation_id})).first()
        if row is None:
            continue
        config = read_config_or_none(row.config)
        if config is None:
            logger.error("form %s: this release cannot read the configuration of its app", row.form_id)
        if continues_after_expiry(config):
            await _begin(connection, context, row, TIMED_OUT, None, NO_TRACE)
            begun = True
        else:
            await close_form(connection, form_of(row), TIMED_OUT, None)
    return len(conversation_ids), begun


async def _begin(
    connection: AsyncConnection,
    context: OwnerContext,
    asked: DbRow,
    answer: FormAnswer,
    owner: str | None,
    trace: Trace,
) -> TaskId:
    """Close the form with this answer, and insert the turn that carries it.

    The turn has what the question's turn had: the version of the app, the inputs and the client's own ids.
    """
    task_id = TaskId(new_id())
    form = await close_form(connection, form_of(asked), answer, task_id)
    found = (await connection.execute(NEXT_SEQ, {"conversation": asked.conversation_id})).one()
    conversation = NumberedConversation(*found)
    is_busy = await active_turn(connection, asked.conversation_id) is not None
    new = NewTurn(
        task_id=task_id,
        conversation_id=ConversationId(asked.conversation_id),
        app_version_id=AppVersionId(asked.app_version_id),
        seq=conversation.last_seq,
        query=query_of(form.definition, answer),
        inputs={},
        files=[],
        state=TurnState.QUEUED if is_busy else TurnState.PLANNED,
        owner=None if is_busy else owner,
        form_id=form.id,
        inputs_of=MessageId(asked.inputs_of or asked.form_message_id),
        trace=replace(trace, id=asked.trace_id or "", session_id=asked.trace_session_id or ""),
    )
    await insert_turn(connection, context, new, conversation.updated_at)
    return task_id
