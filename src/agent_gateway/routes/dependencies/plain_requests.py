"""The parameters of plain requests, read without the framework (routes/http/shortcut.py)."""

import json
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.requests import Request

from agent_gateway.routes.dependencies.auth import bearer, get_app, read_key
from agent_gateway.routes.dependencies.state import get_state
from agent_gateway.routes.http.request_text import HEADERS
from agent_gateway.routes.http.trace import TraceHeaders, request_trace
from agent_gateway.routes.schemas.chat_messages import ChatMessageBody

MAX_KEY: Final = 255
"""Characters of an Idempotency-Key."""
MAX_DIGITS: Final = 12
"""Of a cursor in a plain request."""


async def read_plain_message(request: Request) -> dict[str, Any] | None:
    """The arguments of the route's function; None when anything about the request is unusual or wrong.

    Raises what the route's dependencies raise for a key that opens no app. Its body is not read before that.
    """
    given = _headers(request)
    if given is None or request.scope["query_string"]:
        return None
    if any(
        name == b"content-type" and value.lower().startswith(b"multipart/")
        for name, value in request.scope["headers"]
    ):
        return None
    key = given.get(b"idempotency-key")
    if b"last-event-id" in given or (key is not None and not 0 < len(key) <= MAX_KEY):
        return None
    state = await get_state(request)
    api_key = await read_key(request, state, await bearer(request))
    app = await get_app(state, api_key)
    try:
        message = ChatMessageBody.model_validate(json.loads(await request.body()))
    except (ValueError, RecursionError, ValidationError):
        return None
    return {
        "body": message,
        "app": app,
        "state": state,
        "api_key": api_key,
        "traced": TraceHeaders(
            request_trace(request), given.get(b"x-trace-id"), given.get(b"x-trace-session-id")
        ),
        "idempotency_key": key,
    }


async def read_plain_reading(request: Request) -> dict[str, Any] | None:
    """The same for the events of a turn, asked for as EventSource does: with a ticket, perhaps a cursor."""
    given, query = _headers(request), request.scope["query_string"]
    if given is None or b"%" in query or not query.isascii():
        return None
    pairs = parse_qsl(query.decode(), keep_blank_values=True)
    values = dict(pairs)
    ticket, after = values.get("ticket"), values.get("after")
    if not ticket or len(values) < len(pairs) or values.keys() - {"ticket", "after"}:
        return None
    if after is not None and not (after.isdecimal() and len(after) <= MAX_DIGITS):
        return None
    return {
        "task_id": request.scope["path"].split("/")[-2],
        "state": await get_state(request),
        "api_key": None,
        "ticket": ticket,
        "after": None if after is None else int(after),
        "last_event_id": given.get(b"last-event-id"),
    }


def _headers(request: Request) -> dict[bytes, str] | None:
    """The headers that are passed on; None when one of them is there twice, or is no plain text."""
    given: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name in HEADERS:
            if name in given or not value.isascii() or b"\0" in value:
                return None
            given[name] = value.decode()
    return given
