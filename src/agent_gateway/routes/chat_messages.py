"""POST /chat-messages, its stop, and the events of a turn."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Final

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import JSONResponse

from agent_gateway.domain.events import TurnFailed
from agent_gateway.domain.ids import AppId, ConversationId, TaskId, canonical_uuid
from agent_gateway.domain.turns import Caller, Outcome, TurnRequest
from agent_gateway.errors import (
    BadRequest,
    ConversationBusy,
    InvalidParam,
    NotFound,
    StoreUnavailable,
    TurnError,
    Unauthorized,
    Unavailable,
)
from agent_gateway.routes.dependencies.auth import (
    Credentials,
    TicketText,
    UncountedAppDep,
    count_request,
    get_app,
)
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import ERRORS
from agent_gateway.routes.http.input_files import input_files
from agent_gateway.routes.http.tickets import Ticket
from agent_gateway.routes.http.trace import TraceDep
from agent_gateway.routes.schemas.base import Success, User
from agent_gateway.routes.schemas.chat_messages import (
    BackgroundTurn,
    BusyBody,
    ChatMessage,
    ChatMessageBody,
    StopBody,
)
from agent_gateway.routes.streams.frames import FrameVariant, Mode, usage_json
from agent_gateway.routes.streams.response import TurnStream, once_found
from agent_gateway.routes.streams.schemas import EVENT_STREAM
from agent_gateway.routes.streams.turn_sources import Found, find, found_live
from agent_gateway.turns.live_turn import LiveTurn

FIRST_EVENT_SECONDS: Final = 0.9
"""How long a stream's status waits for a first event, so that an early failure gets a real status."""

router = APIRouter(tags=["chat"])

TaskPath = Annotated[str, Path(description="`task_id` of the turn.")]
ModeQuery = Annotated[
    Mode | None, Query(description="App mode of this one stream, instead of the app's own.")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key and body never make a second turn.",
        alias="Idempotency-Key",
    ),
]
LastEventId = Annotated[
    str | None,
    Header(
        description="`event_id` of the last event that was seen.",
        alias="Last-Event-ID",
        json_schema_extra={"pattern": "^[0-9]{1,12}$"},
    ),
]


@router.post(
    "/chat-messages",
    operation_id="sendChatMessage",
    summary="Send a message",
    response_model=ChatMessage,
    responses={
        200: {
            "description": "The answer; with `response_mode: streaming` its events.",
            "headers": {
                "X-Task-Id": {
                    "description": "The turn of a stream, before its first event.",
                    "schema": {"type": "string"},
                },
                "X-Turn-Events-URL": {
                    "description": "Follows the turn of a stream without a key, for a limited time.",
                    "schema": {"type": "string"},
                },
            },
            **EVENT_STREAM,
        },
        202: {"model": BackgroundTurn, "description": "Begun, with `response_mode: background`."},
        204: {"description": "With Last-Event-ID: the turn has ended and nothing is left."},
        409: {
            "model": BusyBody,
            "description": "`conversation_busy`, `human_input_required` or `idempotency_conflict`.",
        },
        **ERRORS,
    },
)
async def post_chat_message(
    body: ChatMessageBody,
    app: UncountedAppDep,
    state: StateDep,
    credentials: Credentials,
    traced: TraceDep,
    mode: ModeQuery = None,
    ids: Annotated[bool, Query(description="Send SSE `id:` lines on this stream, too.")] = False,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Send one message and get its answer: as a stream of events, as one JSON body, or later."""
    caller = Caller(app, body.user)
    request = TurnRequest(
        query=body.query,
        inputs=body.inputs,
        files=input_files(app, body.files),
        conversation_id=ConversationId(body.conversation_id) if body.conversation_id else None,
        idempotency_key=idempotency_key,
        auto_name=body.auto_generate_name,
        trace=traced.with_body(body.trace_id),
    )
    if last_event_id is not None:
        after = _position(last_event_id, "Last-Event-ID")
        found = await find(state, caller.app.id, caller.user, await _earlier(state, caller, request))
    else:
        after = 0
        if not await _is_repeated(state, caller, request):
            await count_request(app, state, credentials)
        found = await _start(state, caller, request)
    if body.response_mode == "background":
        return await _background(state, caller, found)
    if body.response_mode == "blocking":
        return await _blocking(found, idempotency_key)
    if found.nothing_left(after):
        return Response(status_code=204)
    if found.live is not None and after == 0:
        await _refuse_early_failure(found.live, idempotency_key)
    headers = {
        "X-Task-Id": found.view.task_id,
        "X-Turn-Events-URL": _events_url(state, caller.app.id, caller.user, found.view.task_id),
    }
    variant = FrameVariant(mode or found.view.mode, ids)
    return TurnStream(found.frames(variant, after, state.ping_seconds), headers)


@router.post(
    "/chat-messages/{task_id}/stop",
    operation_id="stopChatMessage",
    summary="Stop a turn",
    response_description="Done, or there was nothing to stop.",
    responses={400: ERRORS[400], 401: ERRORS[401], 503: ERRORS[503]},
)
async def post_stop(task_id: TaskPath, body: StopBody, app: UncountedAppDep, state: StateDep) -> Success:
    """Stop a running turn: its partial answer is kept and its stream ends with `message_end`.

    Also succeeds when there is nothing to stop: unknown, finished, or somebody else's.
    """
    if canonical := canonical_uuid(task_id):
        await state.live.stop(Caller(app, body.user), TaskId(canonical))
    return Success(result="success")


@router.get(
    "/chat-messages/{task_id}/events",
    operation_id="followTurn",
    summary="Follow a turn",
    response_class=Response,
    responses={
        200: {"description": "The events after the cursor, then live.", **EVENT_STREAM},
        204: {"description": "The turn has ended and nothing is left; EventSource stops."},
        **{status: ERRORS[status] for status in (400, 401, 404, 503)},
    },
)
async def get_events(
    task_id: TaskPath,
    state: StateDep,
    credentials: Credentials,
    ticket: TicketText,
    user: Annotated[User | None, Query(description="Required with an API key; a ticket knows it.")] = None,
    after: Annotated[
        int | None, Query(ge=0, description="`event_id` after which to begin; wins over Last-Event-ID.")
    ] = None,
    mode: ModeQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The events of a turn after a cursor (from the start without one), with SSE `id:` lines."""
    if ticket is not None:
        who = state.tickets.read(ticket)
    elif credentials is None:
        raise Unauthorized("An API key or a ticket is required.")
    else:
        app = await get_app(state, credentials)
        if user is None:
            raise InvalidParam("user: is required with an API key")
        who = Ticket(TaskId(canonical_uuid(task_id) or ""), app.id, user)
    if who.task_id != canonical_uuid(task_id):
        raise NotFound("Task not found.")
    position = _position(last_event_id, "Last-Event-ID") if after is None and last_event_id else after or 0

    def frames(found: Found) -> AsyncGenerator[bytes]:
        return found.frames(FrameVariant(mode or found.view.mode, True), position, state.ping_seconds)

    async def later() -> AsyncGenerator[bytes]:
        if state.live.draining.is_set():
            raise Unavailable("This server is shutting down.")
        return frames(await find(state, who.app_id, who.user, who.task_id))

    try:
        found = await find(state, who.app_id, who.user, who.task_id)
    except StoreUnavailable:
        return TurnStream(once_found(later, state.ping_seconds), {"X-Task-Id": who.task_id})
    if found.nothing_left(position):
        return Response(status_code=204)
    return TurnStream(frames(found), {"X-Task-Id": who.task_id})


async def _start(state: AppState, caller: Caller, request: TurnRequest) -> Found:
    try:
        started = await state.live.start(caller, request)
    except ConversationBusy as busy:
        events_url = _events_url(state, caller.app.id, caller.user, TaskId(busy.task_id))
        busy.details = {**busy.details, "events_url": events_url}
        raise
    if isinstance(started, LiveTurn):
        return found_live(state, started)
    return await find(state, caller.app.id, caller.user, started)


async def _is_repeated(state: AppState, caller: Caller, request: TurnRequest) -> bool:
    """True for a post that makes no turn; only looked up when it matters: it is no new request."""
    if caller.app.config.limits.requests_per_minute is None or not request.idempotency_key:
        return False
    return await state.turns.find_by_key(caller, request) is not None


async def _earlier(state: AppState, caller: Caller, request: TurnRequest) -> TaskId:
    """The turn a re-POST wants to go on with; it never starts a second one."""
    earlier = await state.turns.find_by_key(caller, request) if request.idempotency_key else None
    if earlier is None:
        raise BadRequest(
            "A POST with Last-Event-ID does not start a turn. To resume a stream, use "
            "GET /chat-messages/{task_id}/events, or repeat the POST with its Idempotency-Key."
        )
    return earlier


async def _blocking(found: Found, idempotency_key: str | None) -> Response:
    result = await found.result()
    if result.outcome is Outcome.FAILED:
        raise _failed(result.error_code or "internal_server_error", idempotency_key)
    view = found.view
    return JSONResponse(
        {
            "event": "message",
            "task_id": view.task_id,
            "id": view.message_id,
            "message_id": view.message_id,
            "conversation_id": view.conversation_id,
            "mode": "chat",
            "answer": result.answer,
            "metadata": {"usage": usage_json(result.usage), "retriever_resources": []},
            "created_at": view.created_at,
        }
    )


async def _background(state: AppState, caller: Caller, found: Found) -> Response:
    view = found.view
    status = "running"
    if view.ended:
        status = (await found.result()).outcome.value
    body = BackgroundTurn.model_validate(
        {
            "task_id": view.task_id,
            "message_id": view.message_id,
            "conversation_id": view.conversation_id,
            "created_at": view.created_at,
            "status": status,
            "events_url": _events_url(state, caller.app.id, caller.user, view.task_id),
        }
    )
    return JSONResponse(body.model_dump(), status_code=202)


async def _refuse_early_failure(live: LiveTurn, idempotency_key: str | None) -> None:
    # The answer of a human that a turn carries comes first, and says nothing about its run.
    log, first = live.log, live.turn.opening
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_EVENT_SECONDS):
            while len(log.events) <= first and not log.closed:
                await log.wait(first, FIRST_EVENT_SECONDS)
    if len(log.events) > first and isinstance(failed := log.events[first], TurnFailed):
        raise _failed(failed.code, idempotency_key)


def _failed(code: str, idempotency_key: str | None) -> TurnError:
    error = TurnError(code)
    if idempotency_key:
        # The key remembers this turn, failed as it is: who obeyed would ask in vain for a day.
        error.retry_after = None
    return error


def _events_url(state: AppState, app_id: AppId, user: str, task_id: TaskId) -> str:
    return state.tickets.events_url(Ticket(task_id, app_id, user))


def _position(text: str, name: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise InvalidParam(f"{name}: must be the event_id of an event of this stream")
    return int(text)
