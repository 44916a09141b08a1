"""The events of a turn: followed from any position, again and again, with a key or a ticket."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from agent_gateway import metrics
from agent_gateway.domain.ids import AppId, TaskId, canonical_uuid
from agent_gateway.errors import InvalidParam, NotFound, StoreUnavailable, Unauthorized, Unavailable
from agent_gateway.routes.dependencies.auth import ApiKeyText, TicketText, get_app
from agent_gateway.routes.dependencies.parameters import LastEventId, ModeQuery, TaskPath, position_of
from agent_gateway.routes.dependencies.plain_requests import read_plain_reading
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import RESOURCE_ERRORS
from agent_gateway.routes.http.shortcut import ShortRoute
from agent_gateway.routes.schemas.base import User
from agent_gateway.routes.schemas.stream_events import EVENT_STREAM
from agent_gateway.routes.streams.frames import FrameVariant
from agent_gateway.routes.streams.response import TurnStream, body_once_found
from agent_gateway.routes.streams.turn_sources import TurnSource
from agent_gateway.routes.streams.wire import StreamBody

router = APIRouter(tags=["chat"])


@router.get(
    "/chat-messages/{task_id}/events",
    operation_id="followTurn",
    summary="Follow a turn",
    response_class=Response,
    responses={
        200: {"description": "The events after the cursor, then live.", **EVENT_STREAM},
        204: {"description": "The turn has ended and nothing is left; EventSource stops."},
        **RESOURCE_ERRORS,
    },
)
async def get_events(
    task_id: TaskPath,
    state: StateDep,
    api_key: ApiKeyText,
    ticket: TicketText,
    user: Annotated[User | None, Query(description="Required with an API key; a ticket knows it.")] = None,
    after: Annotated[
        int | None, Query(ge=0, description="`event_id` after which to begin; wins over Last-Event-ID.")
    ] = None,
    mode: ModeQuery = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The events of a turn after a cursor (from the start without one), with SSE `id:` lines."""
    app_id, reader, task = await _reader(state, api_key, ticket, user, canonical_uuid(task_id))
    position = position_of(last_event_id, "Last-Event-ID") if after is None and last_event_id else after or 0

    def body(found: TurnSource) -> StreamBody:
        return found.body(FrameVariant(mode or found.view.mode, True), position)

    async def later() -> StreamBody:
        if state.live.draining.is_set():
            raise Unavailable("This server is shutting down.")
        return body(await state.sources.find(app_id, reader, task))

    try:
        found = await state.sources.find(app_id, reader, task)
    except StoreUnavailable:
        return TurnStream(body_once_found(later, state.ping_seconds), {"X-Task-Id": task})
    except NotFound:
        if position:
            metrics.RESUMES("gone").inc()
        raise
    if position:
        metrics.RESUMES("replaced" if found.replaces(position) else "exact").inc()
    if found.nothing_left(position):
        return Response(status_code=204)
    return TurnStream(body(found), {"X-Task-Id": task})


async def _answer_plain_reading(request: Request) -> Response | None:
    """The same for a plain request, without the framework; None for any other."""
    arguments = await read_plain_reading(request)
    return None if arguments is None else await get_events(**arguments)


SHORTCUT: Final = ShortRoute(
    "GET",
    "/chat-messages/{task_id}/events",
    re.compile(r"(?:/v1)?/chat-messages/[0-9A-Fa-f-]{36}/events"),
    _answer_plain_reading,
)


async def _reader(
    state: AppState,
    api_key: str | None,
    ticket: str | None,
    user: str | None,
    task_id: str | None,
) -> tuple[AppId, str, TaskId]:
    """The app and the user for whom a turn is read, and the turn: by ticket, or by key and `user`."""
    if ticket is not None:
        signed = state.tickets.read(ticket)
        if signed.task_id != task_id:
            raise NotFound("Task not found.")
        return signed.app_id, signed.user, signed.task_id
    if api_key is None:
        raise Unauthorized("An API key or a ticket is required.")
    app = await get_app(state, api_key)
    if user is None:
        raise InvalidParam("user: is required with an API key")
    if task_id is None:
        raise NotFound("Task not found.")
    return app.id, user, TaskId(task_id)
