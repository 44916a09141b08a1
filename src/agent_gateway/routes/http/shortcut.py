"""A shorter way to the busiest routes.

The framework takes a request through ten layers and resolves its parameters anew, through a dozen
dependencies, which costs as much as all the rest of a short turn. A shortcut reads a plain request itself and
calls the same function. Whatever is not plain takes the framework's way, where mistakes are found and
explained: nobody can tell the two apart.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_gateway.routes.http.body_values import MAX_VALUES


@dataclass(frozen=True, slots=True)
class ShortRoute:
    """A route that has a shortcut."""

    method: str
    path: str
    """For the log, as that of the framework's route."""
    pattern: re.Pattern[str]
    answer: Callable[[Request], Awaitable[Response | None]]
    """Gets requests that may be plain; None for one that is not. It looks at the key before the body."""


class Shortcut:
    """Middleware around those that stand before a body, with the errors that the application handles."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[ShortRoute], most: int) -> None:
        """`most` is the size in bytes of the largest body that is accepted."""
        self._app = app
        self._routes = routes
        # A body of so few bytes cannot have too many values.
        self._most = min(most, MAX_VALUES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain request; pass on any other, with all that was received of it."""
        route = self._route(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        received = _Received(receive)
        request = Request(scope, received)
        try:
            response = await route.answer(request)
        except Exception as error:  # noqa: BLE001 - raised again when nobody handles it
            response = await _handled(request, error)
        if response is None:
            await self._app(scope, received.again, send)
        else:
            await response(scope, receive, send)

    def _route(self, scope: Scope) -> ShortRoute | None:
        if scope["type"] == "http":
            for route in self._routes:
                if scope["method"] == route.method and route.pattern.fullmatch(scope["path"]):
                    return route if route.method == "GET" or self._is_small(scope) else None
        return None

    def _is_small(self, scope: Scope) -> bool:
        size = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        return size.isdigit() and int(size) <= self._most


class _Received:
    """The messages of a request, which can be received once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def __call__(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        return message

    async def again(self) -> Message:
        """The same messages in the same order, then what comes after them."""
        return self._messages.pop(0) if self._messages else await self._receive()


async def _handled(request: Request, error: Exception) -> Response:
    """What the application's handler answers to an error, as if the error came from a route."""
    for kind in type(error).__mro__:
        # That of Exception itself belongs to the framework's outermost layer, which also logs.
        if kind is not Exception and (handler := request.app.exception_handlers.get(kind)):
            response: Response = await handler(request, error)
            return response
    raise error
