"""Turns: begun with a message, and stopped."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from agent_gateway.domain.events import TurnFailed
from agent_gateway.domain.ids import ConversationId, TaskId, canonical_uuid
from agent_gateway.domain.turns import Caller, Outcome, TurnRequest, Usage
from agent_gateway.errors import (
    BadRequest,
    ConversationBusy,
    TurnError,
)
from agent_gateway.routes.dependencies.auth import (
    ApiKeyText,
    UncountedAppDep,
    count_key,
)
from agent_gateway.routes.dependencies.parameters import LastEventId, ModeQuery, TaskPath, position_of
from agent_gateway.routes.dependencies.plain_requests import MAX_KEY, read_plain_message
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import ERRORS, error_responses
from agent_gateway.routes.http.input_files import input_files
from agent_gateway.routes.http.shortcut import ShortRoute
from agent_gateway.routes.http.tickets import Ticket
from agent_gateway.routes.http.trace import TraceDep
from agent_gateway.routes.schemas.base import Metadata, Success, UsageBody
from agent_gateway.routes.schemas.chat_messages import (
    BackgroundTurn,
    BusyBody,
    ChatMessage,
    ChatMessageBody,
    StopBody,
)
from agent_gateway.routes.schemas.stream_events import EVENT_STREAM
from agent_gateway.routes.streams.frames import FrameVariant
from agent_gateway.routes.streams.response import TurnStream
from agent_gateway.routes.streams.turn_sources import TurnSource
from agent_gateway.turns.live_turn import LiveTurn

router = APIRouter(tags=["chat"])

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_KEY,
        description="The same key and body never make a second turn.",
        alias="Idempotency-Key",
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
    api_key: ApiKeyText,
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
        after = position_of(last_event_id, "Last-Event-ID")
        source = await _resumed(state, caller, request)
    else:
        after = 0
        source = await _started(state, api_key, caller, request)
    match body.response_mode:
        case "background":
            return await _background(state, caller, source)
        case "blocking":
            return await _blocking(source, idempotency_key)
        case "streaming" if source.nothing_left(after):
            return Response(status_code=204)
        case "streaming":
            if source.live is not None and after == 0:
                await _refuse_early_failure(source.live, state.limits.first_event_seconds, idempotency_key)
            variant = FrameVariant(mode or source.view.mode, ids)
            headers = {
                "X-Task-Id": source.view.task_id,
                "X-Turn-Events-URL": _events_url(state, caller, source.view.task_id),
            }
            return TurnStream(source.body(variant, after), headers)


async def _answer_plain_message(request: Request) -> Response | None:
    """The same for a plain request, without the framework; None for any other."""
    arguments = await read_plain_message(request)
    return None if arguments is None else await post_chat_message(**arguments)


SHORTCUT: Final = ShortRoute(
    "POST", "/chat-messages", re.compile(r"(?:/v1)?/chat-messages"), _answer_plain_message
)


@router.post(
    "/chat-messages/{task_id}/stop",
    operation_id="stopChatMessage",
    summary="Stop a turn",
    response_description="Done, or there was nothing to stop.",
    responses=error_responses(400, 401, 503),
)
async def post_stop(task_id: TaskPath, body: StopBody, app: UncountedAppDep, state: StateDep) -> Success:
    """Stop a running turn: its partial answer is kept and its stream ends with `message_end`.

    Also succeeds when there is nothing to stop: unknown, finished, or somebody else's.
    """
    if canonical := canonical_uuid(task_id):
        await state.live.stop(Caller(app, body.user), TaskId(canonical))
    return Success(result="success")


async def _started(
    state: AppState,
    api_key: str | None,
    caller: Caller,
    request: TurnRequest,
) -> TurnSource:
    """The turn that this request begins, or has begun before with the same Idempotency-Key."""
    limited = caller.app.config.limits.requests_per_minute is not None
    if limited and not await _is_repeated(state, caller, request):
        await count_key(state, api_key)
    try:
        started = await state.live.start(caller, request)
    except ConversationBusy as busy:
        busy.details = {**busy.details, "events_url": _events_url(state, caller, TaskId(busy.task_id))}
        raise
    if isinstance(started, LiveTurn):
        return state.sources.of_live(started)
    return await state.sources.find(caller.app.id, caller.user, started)


async def _is_repeated(state: AppState, caller: Caller, request: TurnRequest) -> bool:
    """True for a repeated post, which is not counted."""
    if not request.idempotency_key:
        return False
    return await state.turns.reader.find_by_key(caller, request) is not None


async def _resumed(state: AppState, caller: Caller, request: TurnRequest) -> TurnSource:
    """The turn that a repeated POST resumes; it never starts a second one."""
    earlier = await state.turns.reader.find_by_key(caller, request) if request.idempotency_key else None
    if earlier is None:
        raise BadRequest(
            "A POST with Last-Event-ID does not start a turn. To resume a stream, use "
            "GET /chat-messages/{task_id}/events, or repeat the POST with its Idempotency-Key."
        )
    return await state.sources.find(caller.app.id, caller.user, earlier)


async def _blocking(source: TurnSource, idempotency_key: str | None) -> Response:
    result = await source.result()
    if result.outcome is Outcome.FAILED:
        raise _failed(result.error_code or "internal_server_error", idempotency_key)
    view = source.view
    usage = UsageBody.model_validate(result.usage or Usage(), from_attributes=True)
    message = ChatMessage(
        event="message",
        task_id=view.task_id,
        id=view.message_id,
        message_id=view.message_id,
        conversation_id=view.conversation_id,
        mode="chat",
        answer=result.answer,
        metadata=Metadata(usage=usage, retriever_resources=[], finish_reason=result.finish_reason),
        created_at=view.created_at,
    )
    return JSONResponse(message.model_dump())


async def _background(state: AppState, caller: Caller, source: TurnSource) -> Response:
    view = source.view
    turn = BackgroundTurn(
        task_id=view.task_id,
        message_id=view.message_id,
        conversation_id=view.conversation_id,
        created_at=view.created_at,
        status=(await source.result()).outcome.value if view.ended else "running",
        events_url=_events_url(state, caller, view.task_id),
    )
    return JSONResponse(turn.model_dump(), status_code=202)


async def _refuse_early_failure(live: LiveTurn, seconds: float, idempotency_key: str | None) -> None:
    """Raise the error of a turn that fails before it says anything: its stream gets a real status."""
    # The form's answer that a turn carries comes first, and says nothing about its run.
    log, first = live.log, live.turn.opening
    await log.wait(first, seconds)
    if len(log.events) > first and isinstance(failed := log.events[first], TurnFailed):
        raise _failed(failed.code, idempotency_key)


def _failed(code: str, idempotency_key: str | None) -> TurnError:
    error = TurnError(code)
    if idempotency_key:
        # The key remembers the failed turn: a client that tries again gets the same error for a day.
        error.retry_after = None
    return error


def _events_url(state: AppState, caller: Caller, task_id: TaskId) -> str:
    return state.tickets.events_url(Ticket(task_id, caller.app.id, caller.user))
