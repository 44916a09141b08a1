"""The parameters of a plain POST /chat-messages, read without the framework (routes/http/shortcut.py)."""

import json
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request

from agent_gateway.routes.dependencies.auth import bearer, get_app
from agent_gateway.routes.dependencies.state import get_state
from agent_gateway.routes.http.request_text import HEADERS
from agent_gateway.routes.http.trace import TraceHeaders
from agent_gateway.routes.schemas.chat_messages import ChatMessageBody

MAX_KEY: Final = 255
"""Characters of an Idempotency-Key."""


async def read_plain_message(request: Request) -> dict[str, Any] | None:
    """The arguments of the route's function; None when anything about the request is unusual or wrong.

    Raises what the route's dependencies raise for a key that opens no app. Its body is not read before that.
    """
    given: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name == b"content-type" and value.lower().startswith(b"multipart/"):
            return None
        if name in HEADERS:
            if name in given or not value.isascii() or b"\0" in value:
                return None
            given[name] = value.decode()
    key = given.get(b"idempotency-key")
    if b"last-event-id" in given or (key is not None and not 0 < len(key) <= MAX_KEY):
        return None
    state, credentials = await get_state(request), await bearer(request)
    app = await get_app(state, credentials)
    try:
        message = ChatMessageBody.model_validate(json.loads(await request.body()))
    except (ValueError, RecursionError, ValidationError):
        return None
    return {
        "body": message,
        "app": app,
        "state": state,
        "credentials": credentials,
        "traced": TraceHeaders(given.get(b"x-trace-id"), given.get(b"x-trace-session-id")),
        "idempotency_key": key,
    }
