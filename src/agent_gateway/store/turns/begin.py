"""Begin: a turn's first rows in one transaction (I1, R3, R15)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.inputs import merged, read_inputs
from agent_gateway.domain.human_input import FormAnswer, HumanInputForm
from agent_gateway.domain.ids import ConversationId, TaskId, new_id
from agent_gateway.domain.text import short_name
from agent_gateway.domain.turns import App, Caller, Turn, TurnRequest, TurnState
from agent_gateway.errors import ConversationBusy, NotFound, QuestionOpen, StoreUnavailable
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.scope import END_USER, owned, scope_of
from agent_gateway.store.db.tables import (
    conversations,
    end_users,
    forms,
    is_active,
    is_open,
    snapshots,
    turns,
)
from agent_gateway.store.files import resolve_files
from agent_gateway.store.question_forms import close_form, form_columns, form_of
from agent_gateway.store.turns.admission import check_query, take_place, version_of
from agent_gateway.store.turns.idempotency import claim_key, find_by_key
from agent_gateway.store.turns.inputs import own_inputs
from agent_gateway.store.turns.new_turn import NewTurn, OwnerContext, insert_turn
from agent_gateway.store.turns.stopping import Stopped, interrupt

MAX_QUEUED: Final = 10
"""Turns that may wait behind a conversation's active one."""


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn that was begun: `planned` and ours to run, or `queued` behind an active one."""

    turn: Turn
    interrupted: Sequence[Stopped] = ()
    """The turns before it that it asked to stop, by the app's policy."""


async def begin(
    database: Database,
    terms: OwnerContext,
    caller: Caller,
    request: TurnRequest,
    task_id: TaskId | None = None,
) -> StartedTurn | TaskId:
    """Write a turn's first rows, or find the turn that its Idempotency-Key made before.

    Returns what was begun, or the task id of the earlier turn. Raises NotFound, FileNotFound,
    InvalidParam, ConversationBusy, TooManyRequests, IdempotencyConflict, QuestionOpen, StoreUnavailable.
    Who names the `task_id` can find the turn again after a commit whose answer was lost (R14).
    """
    task_id = task_id or TaskId(new_id())
    for _ in range(3):
        try:
            async with database.transaction() as connection:
                return await _write_rows(connection, terms, caller, request, task_id)
        except (IntegrityError, ConversationBusy) as error:
            # Somebody was faster with the same key, end user or conversation: the key decides.
            if existing := await find_by_key(database, caller, request):
                return existing
            if isinstance(error, ConversationBusy):
                raise
    raise StoreUnavailable("begin met a conflict three times")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a message goes: its conversation as it stands."""

    conversation_id: ConversationId
    seq: int
    now: datetime
    """When it came there, by the database's clock."""
    app: App
    """In the version that the conversation's next turn runs on."""
    inputs: dict[str, Any]
    """The message's own, and those of the conversation's first message that it does not send."""
    own_inputs: dict[str, Any]
    """What the message stores of them."""
    snapshot: str | None = None
    form: HumanInputForm | None = None
    """Of the question that the message answers."""
    active: Row[Any, Any] | None = None


async def _write_rows(
    connection: AsyncConnection, terms: OwnerContext, caller: Caller, request: TurnRequest, task_id: TaskId
) -> StartedTurn:
    if request.idempotency_key:
        await claim_key(connection, caller, request, task_id)
    check_query(caller.app, request)
    if request.conversation_id:
        place = await _go_on(connection, caller, request, request.conversation_id, task_id)
    else:
        place = await _new_conversation(connection, caller, request)
    active, form = place.active, place.form
    if active is None:
        await take_place(connection, caller.app)
    files = await resolve_files(connection, caller, request.files)
    new = NewTurn(
        task_id=task_id,
        conversation_id=place.conversation_id,
        app_version_id=place.app.version_id,
        seq=place.seq,
        query=request.query,
        inputs=place.own_inputs,
        files=files,
        state=TurnState.QUEUED if active else TurnState.PLANNED,
        owner=None if active else terms.owner,
        form_id=form.id if form else None,
        trace=request.trace,
    )
    turn = Turn(
        task_id=task_id,
        conversation_id=place.conversation_id,
        message_id=await insert_turn(connection, terms, new, place.now),
        created_at=int(place.now.timestamp()),
        app=place.app,
        user=caller.user,
        query=request.query,
        inputs=place.inputs,
        files=files,
        snapshot=place.snapshot,
        epoch=1,
        fold_version=terms.fold_versions[0],
        seconds_left=terms.turn_seconds,
        state=new.state,
        form=form,
        trace=request.trace,
    )
    if active is None or place.app.config.on_busy != "interrupt":
        return StartedTurn(turn)
    return StartedTurn(turn, await interrupt(connection, place.conversation_id, task_id, terms.turn_seconds))


async def _resume(
    connection: AsyncConnection, app: App, request: TurnRequest, task_id: TaskId
) -> tuple[str | None, HumanInputForm | None]:
    """The snapshot to go on from; and the form that this message answers, when a question is open.

    A question is open until its expiry is recorded.
    Raises QuestionOpen when the app takes no message as an answer.
    """
    scope = {"conversation": request.conversation_id}
    row = (await connection.execute(_STATE, scope)).first()
    if row is None or row.form_id is None:
        return (row.data if row else None), None
    form = form_of(row)
    if app.config.on_question == "reject":
        raise QuestionOpen(form.message_id, form.token)
    answer = FormAnswer("submitted", message=request.query)
    return row.form_snapshot or row.data, await close_form(connection, form, answer, task_id)


async def _go_on(
    connection: AsyncConnection,
    caller: Caller,
    request: TurnRequest,
    conversation_id: ConversationId,
    task_id: TaskId,
) -> _Place:
    """Lock the caller's conversation by giving it its next number, and see how it stands.

    Raises ConversationBusy when the app wants that, or when too many turns wait already.
    """
    scope: dict[str, str] = {"conversation": conversation_id}
    found = await connection.execute(_NEXT_SEQ, scope | scope_of(caller.app.id, caller.user))
    row = found.first()
    if row is None:
        raise NotFound("Conversation Not Exists.")
    app = await version_of(connection, caller.app, row.app_version_id)
    # Only what is sent now: what was stored fitted the form of its day.
    sent = read_inputs(app.config.user_input_form, request.inputs, starting=False)
    active = (await connection.execute(_ACTIVE_TURN, scope)).first()
    if active is not None:
        if app.config.on_busy == "reject":
            raise ConversationBusy(active.id)
        # With "interrupt" none of those that wait will be left.
        if app.config.on_busy == "enqueue" and (await connection.scalar(_WAITING, scope) or 0) >= MAX_QUEUED:
            raise ConversationBusy(active.id)
    if app.version_id != row.app_version_id:
        await connection.execute(_MOVE_ON, {**scope, "version": app.version_id})
    inputs = merged(row.inputs, sent)
    own = own_inputs(row.inputs, inputs)
    place = _Place(conversation_id, row.last_seq, row.updated_at, app, inputs, own, active=active)
    if active is not None:
        return place
    snapshot, form = await _resume(connection, app, request, task_id)
    return replace(place, snapshot=snapshot, form=form)


async def _new_conversation(connection: AsyncConnection, caller: Caller, request: TurnRequest) -> _Place:
    inputs = read_inputs(caller.app.config.user_input_form, request.inputs, starting=True)
    scope = scope_of(caller.app.id, caller.user)
    end_user_id = await connection.scalar(END_USER, scope)
    if end_user_id is None:
        end_user_id = new_id()
        row = {"id": end_user_id, "app_id": scope["app"], "external_id": scope["user"]}
        await connection.execute(insert(end_users).values(created_at=now_plus()), row)
    conversation_id = ConversationId(new_id())
    now = await connection.scalar(
        _NEW_CONVERSATION,
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
    return _Place(conversation_id, 1, now, caller.app, inputs, {})


_NEW_CONVERSATION = (
    insert(conversations)
    .values(last_seq=1, created_at=now_plus(), updated_at=now_plus())
    .returning(conversations.c.updated_at)
)
_NEXT_SEQ = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), owned(conversations))
    .values(last_seq=conversations.c.last_seq + 1, updated_at=now_plus())
    .returning(
        conversations.c.last_seq,
        conversations.c.updated_at,
        conversations.c.app_version_id,
        conversations.c.inputs,
    )
)
_MOVE_ON = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"))
    .values(app_version_id=bindparam("version"))
)
_ACTIVE_TURN = select(turns.c.id, turns.c.run_id).where(
    turns.c.conversation_id == bindparam("conversation"), is_active(turns)
)
_WAITING = select(func.count()).where(
    turns.c.conversation_id == bindparam("conversation"), turns.c.state == TurnState.QUEUED.value
)
_STATE = (
    select(snapshots.c.data, forms.c.snapshot.label("form_snapshot"), *form_columns())
    .select_from(conversations)
    .outerjoin(snapshots, snapshots.c.conversation_id == conversations.c.id)
    .outerjoin(forms, and_(forms.c.conversation_id == conversations.c.id, is_open(forms)))
    .where(conversations.c.id == bindparam("conversation"))
)
