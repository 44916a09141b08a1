"""Plain ASGI middleware: nothing here wraps or buffers a stream."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_gateway.errors import GatewayError, InvalidParam, StoreError
from agent_gateway.routes.http.body_values import MAX_VALUES, ValueCounter
from agent_gateway.routes.http.errors import BodyNotRead

HEAD_ONLY: Final = "agent_gateway.head_only"
"""Key in the scope of a HEAD request, which is answered as a GET without the body."""
BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
UPLOAD_PATH: Final = "/files/upload"


class HeadRequests:
    """Answers a HEAD as the GET of its path; the server leaves the body out.

    A route whose body is slow or endless looks for HEAD_ONLY, and makes no body.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make a GET of a HEAD. The server keeps its own scope, and with it the method that was asked."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await _with_scope(self._app, scope, {"method": "GET", HEAD_ONLY: True}, receive, send)
        else:
            await self._app(scope, receive, send)


class RequestBodies:
    """Guards the body of each request: the key first, then its type and size.

    Nothing of a body is read before the request's key was checked: every route that takes one needs a key,
    and `check_key` raises when the key opens no app. Then every body but a form is read as JSON, since
    clients leave the content type out or get it wrong. No more than `most` bytes or MAX_VALUES values of it
    are read. Uploads have limits of their own.
    """

    def __init__(self, app: ASGIApp, most: int, check_key: Callable[[Request], Awaitable[object]]) -> None:
        self._app = app
        self._most = most
        self._check_key = check_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replace the content type of a request that may have a JSON body, and stand before the body."""
        if scope["type"] != "http" or scope["method"] not in BODY_METHODS:
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
        given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        changed: dict[str, object] = {}
        most: int | None = self._most
        counter: ValueCounter | None = None
        if given.lower().startswith(b"multipart/"):
            if scope["path"].endswith(UPLOAD_PATH):
                most = None
        else:
            changed = {"headers": [*headers, (b"content-type", b"application/json")]}
            counter = ValueCounter()
        size: int | None = None

        async def guarded() -> Message:
            nonlocal size
            if size is None:
                size = 0
                await self._require_key(Request(scope))
            message = await receive()
            size += len(message.get("body", b""))
            if most is not None and size > most:
                raise HTTPException(413, f"The body is larger than {most} bytes.")
            if counter is not None and (size > MAX_VALUES or message.get("more_body")):
                # A body of fewer bytes cannot have more values.
                counter.feed(message.get("body", b""))
                if counter.values > MAX_VALUES:
                    raise BodyNotRead(InvalidParam(f"The body has more than {MAX_VALUES} values."))
            return message

        await _with_scope(self._app, scope, changed, guarded, send)

    async def _require_key(self, request: Request) -> None:
        try:
            await self._check_key(request)
        except (GatewayError, StoreError) as error:
            raise BodyNotRead(error) from None


async def _with_scope(
    app: ASGIApp, scope: Scope, changed: Mapping[str, object], receive: Receive, send: Send
) -> None:
    """Call the app with a changed copy of the scope. The original learns the route that is found there."""
    inner = {**scope, **changed}
    try:
        await app(inner, receive, send)
    finally:
        if "route" in inner:
            scope["route"] = inner["route"]
