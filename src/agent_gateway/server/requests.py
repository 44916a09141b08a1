"""Every HTTP request has an id, which its client gets back, and one line in the log.

The line has the template of the route, never the path or the query: they may hold tickets, tokens and words
of users.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from structlog.contextvars import bind_contextvars

from agent_gateway import metrics
from agent_gateway.domain.ids import new_id

REQUEST_ID: Final = "agent_gateway.request_id"
"""Key in the scope of every HTTP request: its id in the logs."""
NO_ROUTE: Final = "(no route)"
LEFT: Final = 499
"""The status of a request whose client left before it got one, as proxies call it."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

logger = logging.getLogger(__name__)


def install(app: Any) -> None:
    """Wrap a whole app of Starlette, outside of where unexpected errors are answered."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Requests(build())


class Requests:
    """Names every request by its header X-Request-Id, which a proxy may send, or by a new id."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Bind the id in the task of the request, for that task alone; tasks that it begins inherit it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else new_id()
        scope[REQUEST_ID] = request_id
        bind_contextvars(request_id=request_id)
        began = time.perf_counter()
        status, complete = LEFT, False

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            elif not message.get("more_body", False):
                complete = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            fields: dict[str, Any] = {
                "method": scope["method"],
                "route": route_of(scope),
                "status": status,
                "seconds": round(time.perf_counter() - began, 4),
            }
            if not complete:
                fields["left"] = True
            logger.info("request", extra=fields)
            metrics.count_request(scope["method"], fields["route"], status)


def route_of(scope: Mapping[str, Any]) -> str:
    """The path template of the route that a request took."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))
