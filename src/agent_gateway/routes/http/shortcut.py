"""A shorter way to the busiest route.

The framework resolves the parameters of every request anew, through a dozen dependencies, which costs as much
as all the rest of a short turn. A shortcut reads a plain request itself and calls the same function. Whatever
is not plain takes the framework's way, where mistakes are found and explained: nobody can tell the two apart.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

_TRIED: Final = "agent_gateway.shortcut_tried"


class Shortcut(BaseRoute):
    """The first route of an application, before the one that it shortens."""

    def __init__(
        self,
        router: ASGIApp,
        method: str,
        paths: Collection[str],
        answer: Callable[[Request, bytes], Awaitable[Response | None]],
    ) -> None:
        """`answer` gets the request and its body; it returns None for a request that is not plain."""
        self._router = router
        self._method = method
        self._paths = frozenset(paths)
        self._answer = answer
        self.path = min(paths, key=len)
        """For the log, as that of the route."""

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if (
            scope["type"] == "http"
            and scope["method"] == self._method
            and scope["path"] in self._paths
            and not scope["query_string"]
            and _TRIED not in scope
        ):
            return Match.FULL, {"route": self}
        return Match.NONE, {}

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        response = await self._answer(Request(scope, receive, send), body)
        if response is None:
            scope[_TRIED] = True
            await self._router(scope, _again(body, receive), send)
            return
        await response(scope, receive, send)


async def _read(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body once more, then what comes after it."""
    is_read = False

    async def again() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
