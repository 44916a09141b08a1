"""Every HTTP request has an id, which its client gets back, one line in the log, and a span if it is traced.

Line and span have the template of the route, never the path or the query: they may hold tickets, tokens and
words of users.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from structlog.contextvars import bind_contextvars

from agent_gateway import metrics, tracing
from agent_gateway.domain.ids import new_id

if TYPE_CHECKING:
    from agent_gateway.spans import Span, Tracer, Value

REQUEST_ID: Final = "agent_gateway.request_id"
"""Key in the scope of every HTTP request: its id in the logs."""
NO_ROUTE: Final = "(no route)"
LEFT: Final = 499
"""The status of a request that was left without one, as proxies call it."""

_PARENT: Final = "agent_gateway.traceparent"
"""Key in the scope of a request that is traced: the place of its span."""
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""As in version 00 of W3C Trace Context. A later version may be longer, and is not passed on."""
_STREAM: Final = (b"content-type", b"text/event-stream; charset=utf-8")
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
        span = None if tracing.tracer is None else _begin_span(tracing.tracer, scope, request_id)
        began = time.perf_counter()
        status, complete, streamed = LEFT, False, False

        async def sending(message: dict[str, Any]) -> None:
            nonlocal status, complete, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                streamed = _STREAM in headers
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
            if streamed:
                fields["streamed"] = True
            if not complete:
                fields["left"] = True
            logger.info("request", extra=fields)
            metrics.count_request(scope["method"], fields["route"], status)
            if span is not None:
                _end_span(span, scope, status)


def route_of(scope: Mapping[str, Any]) -> str:
    """The path template of the route that a request took."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))


def traceparent_of(scope: Mapping[str, Any]) -> str:
    """The place of a request in a W3C trace: that of its span if it has one, else what its client says."""
    if _PARENT in scope:
        return str(scope[_PARENT])
    given = [value for name, value in scope["headers"] if name == b"traceparent"]
    # Two of them are none: nobody could tell which is right.
    return given[0].decode() if len(given) == 1 and _TRACEPARENT.fullmatch(given[0]) else ""


def _begin_span(tracer: "Tracer", scope: dict[str, Any], request_id: str) -> "Span":
    method = scope["method"]
    attributes = {
        "http.request.method": method if method in metrics.METHODS else "_OTHER",
        "url.scheme": scope.get("scheme", "http"),
        "agent_gateway.request_id": request_id,
    }
    span = tracer.server_span(_named(method, NO_ROUTE), attributes, parent=traceparent_of(scope))
    scope[_PARENT] = span.traceparent
    return span


def _end_span(span: "Span", scope: Mapping[str, Any], status: int) -> None:
    route = route_of(scope)
    attributes: dict[str, Value] = {} if route == NO_ROUTE else {"http.route": route}
    if status != LEFT:
        attributes["http.response.status_code"] = status
    span.end(attributes, name=_named(scope["method"], route), error=str(status) if status >= 500 else "")


def _named(method: str, route: str) -> str:
    """The name of a span, as the conventions for HTTP want it: of few values."""
    known = method if method in metrics.METHODS else "HTTP"
    return known if route == NO_ROUTE else f"{known} {route}"
