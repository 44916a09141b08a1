"""The parameters of a plain POST /chat-messages, read without the framework (routes/http/shortcut.py)."""

import json
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request

from agent_gateway.routes.dependencies.auth import OPENED, bearer
from agent_gateway.routes.dependencies.state import get_state
from agent_gateway.routes.http.request_text import HEADERS
from agent_gateway.routes.http.trace import TraceHeaders
from agent_gateway.routes.schemas.chat_messages import ChatMessageBody

MAX_KEY: Final = 255
"""Characters of an Idempotency-Key."""


async def read_plain_message(request: Request, body: bytes) -> dict[str, Any] | None:
    """The arguments of the route's function; None when anything about the request is unusual or wrong."""
    given: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name in HEADERS:
            if name in given or not value.isascii() or b"\0" in value:
                return None
            given[name] = value.decode()
    key = given.get(b"idempotency-key")
    if b"last-event-id" in given or (key is not None and not 0 < len(key) <= MAX_KEY):
        return None
    app = request.scope.get(OPENED)
    if app is None:
        return None
    try:
        message = ChatMessageBody.model_validate(json.loads(body))
    except (ValueError, RecursionError, ValidationError):
        return None
    return {
        "body": message,
        "app": app,
        "state": await get_state(request),
        "credentials": await bearer(request),
        "traced": TraceHeaders(given.get(b"x-trace-id"), given.get(b"x-trace-session-id")),
        "idempotency_key": key,
    }
