"""The conversation that a message goes to: a new one, or an existing one as it stands. Within `begin`."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import and_, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.inputs import merge_inputs, read_inputs
from agent_gateway.apps.policy import refuses_while_asked, refuses_while_busy
from agent_gateway.domain.human_input import FormAnswer, HumanInputForm
from agent_gateway.domain.ids import ConversationId, TaskId, new_id
from agent_gateway.domain.text import short_name
from agent_gateway.domain.turns import App, Caller, TurnRequest, TurnState
from agent_gateway.errors import ConversationBusy, NotFound, QuestionOpen
from agent_gateway.json_types import JsonObject
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import END_USER, owned, scope_of
from agent_gateway.store.db.tables import conversations, end_users, forms, is_open, snapshots, turns
from agent_gateway.store.question_forms import close_form, form_columns, form_of
from agent_gateway.store.turns.admission import version_of
from agent_gateway.store.turns.inputs import own_inputs
from agent_gateway.store.turns.locks import NEXT_SEQ, NumberedConversation, active_turn


@dataclass(frozen=True, slots=True)
class ConversationState:
    """A message's conversation, which is locked: what the message's turn begins with."""

    conversation_id: ConversationId
    seq: int
    """The number of the message's turn."""
    now: datetime
    """When the message arrived, by the database's clock."""
    app: App
    """In the version that the turn runs on."""
    inputs: JsonObject
    """The message's own, and those of the conversation's first message that it does not send."""
    own_inputs: JsonObject
    """What the message stores of them."""
    active: TaskId | None = None
    """The turn that the message has to wait for."""
    snapshot: str | None = None
    """The session snapshot from which the turn continues; unknown while it has to wait."""
    form: HumanInputForm | None = None
    """The form of the question that the message answers."""


INSERT_USER: Final = insert(end_users).values(created_at=now_plus())
INSERT_CONVERSATION: Final = (
    insert(conversations)
    .values(last_seq=1, created_at=now_plus(), updated_at=now_plus())
    .returning(conversations.c.updated_at)
)


async def new_conversation(
    connection: AsyncConnection, caller: Caller, request: TurnRequest
) -> ConversationState:
    """Insert a conversation, and the caller's end user before the first one. Raises InvalidParam."""
    inputs = read_inputs(caller.app.config.user_input_form, request.inputs, starting=True)
    scope = scope_of(caller.app.id, caller.user)
    end_user_id = await connection.scalar(END_USER, scope)
    if end_user_id is None:
        end_user_id = new_id()
        row = {"id": end_user_id, "app_id": scope["app"], "external_id": scope["user"]}
        await connection.execute(INSERT_USER, row)
    conversation_id = ConversationId(new_id())
    now = await connection.scalar(
        INSERT_CONVERSATION,
        {
            "id": conversation_id,
            "app_id": caller.app.id,
            "app_version_id": caller.app.version_id,
            "end_user_id": end_user_id,
            "name": short_name(request.query),
            "naming": "open" if request.auto_name else "closed",
            "inputs": inputs,
            "introduction": caller.app.config.opening_statement,
        },
    )
    assert isinstance(now, datetime)
    return ConversationState(conversation_id, 1, now, caller.app, inputs, {})


_NEXT_SEQ_OF_CALLER: Final = NEXT_SEQ.where(owned(conversations))
_COUNT_QUEUED: Final = select(func.count()).where(
    turns.c.conversation_id == bindparam("conversation"), turns.c.state == TurnState.QUEUED.value
)
_SET_VERSION: Final = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(app_version_id=bindparam("version"))
)


async def continue_conversation(
    connection: AsyncConnection,
    caller: Caller,
    request: TurnRequest,
    conversation_id: ConversationId,
    task_id: TaskId,
) -> ConversationState:
    """Lock the caller's conversation by giving it its next number, and read how it stands.

    Raises NotFound, InvalidParam, QuestionOpen, and ConversationBusy when the app wants that or when too
    many turns are queued.
    """
    scope = {"conversation": conversation_id}
    caller_scope = scope_of(caller.app.id, caller.user)
    found = (await connection.execute(_NEXT_SEQ_OF_CALLER, scope | caller_scope)).first()
    if found is None:
        raise NotFound("Conversation Not Exists.")
    row = NumberedConversation(*found)
    app = await version_of(connection, caller.app, row.app_version_id)
    # Only what is sent now is checked: the stored inputs fitted the input form of their time.
    sent = read_inputs(app.config.user_input_form, request.inputs, starting=False)
    active = await active_turn(connection, conversation_id)
    if active is not None:
        queues = app.config.on_busy == "enqueue"
        waiting = (await connection.scalar(_COUNT_QUEUED, scope) or 0) if queues else 0
        if refuses_while_busy(app.config, waiting):
            raise ConversationBusy(active)
    if app.version_id != row.app_version_id:
        await connection.execute(_SET_VERSION, {**scope, "version": app.version_id})
    inputs = merge_inputs(row.inputs, sent)
    own = own_inputs(row.inputs, inputs)
    state = ConversationState(conversation_id, row.last_seq, row.updated_at, app, inputs, own, active)
    if active is not None:
        return state
    snapshot, form = await _session_state(connection, app, request, task_id)
    return replace(state, snapshot=snapshot, form=form)


_SESSION_STATE: Final = (
    select(snapshots.c.data, forms.c.snapshot.label("form_snapshot"), *form_columns())
    .select_from(conversations)
    .outerjoin(snapshots, snapshots.c.conversation_id == conversations.c.id)
    .outerjoin(forms, and_(forms.c.conversation_id == conversations.c.id, is_open(forms)))
    .where(conversations.c.id == bindparam("conversation"))
)


async def _session_state(
    connection: AsyncConnection, app: App, request: TurnRequest, task_id: TaskId
) -> tuple[str | None, HumanInputForm | None]:
    """The snapshot from which the turn continues; and the form that the message answers, if one is open.

    A question is open until its expiry is recorded. Raises QuestionOpen when the app does not accept a
    message as an answer.
    """
    row = (await connection.execute(_SESSION_STATE, {"conversation": request.conversation_id})).first()
    if row is None or row.form_id is None:
        return (row.data if row else None), None
    form = form_of(row)
    if refuses_while_asked(app.config):
        raise QuestionOpen(form.message_id, form.token)
    answer = FormAnswer("submitted", message=request.query)
    return row.form_snapshot or row.data, await close_form(connection, form, answer, task_id)
