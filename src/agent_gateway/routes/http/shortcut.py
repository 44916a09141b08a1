"""A shorter way to the busiest route.

The framework takes a request through ten layers and resolves its parameters anew, through a dozen
dependencies, which costs as much as all the rest of a short turn. A shortcut reads a plain request itself and
calls the same function. Whatever is not plain takes the framework's way, where mistakes are found and
explained: nobody can tell the two apart.
"""

from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_gateway.routes.http.body_values import MAX_VALUES


class Shortcut:
    """Middleware around those that stand before a body: `answer` gets plain requests before they do.

    It returns None for a request that is not plain after all. It has to look at the key before the body, and
    finds the errors that the application has handlers for handled.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        method: str,
        paths: Collection[str],
        most: int,
        answer: Callable[[Request], Awaitable[Response | None]],
    ) -> None:
        """`most` is the size in bytes of the largest body that is accepted."""
        self._app = app
        self._method = method
        self._paths = frozenset(paths)
        # A body of so few bytes cannot have too many values.
        self._most = min(most, MAX_VALUES)
        self._answer = answer
        self.path = min(paths, key=len)
        """For the log, as that of the route."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain request; pass on any other, with all that was received of it."""
        if not self._may_be_plain(scope):
            await self._app(scope, receive, send)
            return
        scope["route"] = self
        received = _Received(receive)
        request = Request(scope, received)
        try:
            response = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - raised again when nobody handles it
            response = await _handled(request, error)
        if response is None:
            await self._app(scope, received.again, send)
        else:
            await response(scope, receive, send)

    def _may_be_plain(self, scope: Scope) -> bool:
        """Whether its way and its size are those of a plain request."""
        if (
            scope["type"] != "http"
            or scope["method"] != self._method
            or scope["path"] not in self._paths
            or scope["query_string"]
        ):
            return False
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
