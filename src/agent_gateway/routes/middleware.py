"""Plain ASGI middleware: nothing here wraps or buffers a stream."""

from starlette.types import ASGIApp, Receive, Scope, Send

BODY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class AssumeJSON:
    """Reads every body as JSON unless it is a form: clients leave the content type out or get it wrong."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replace the content type of a request that may have a JSON body."""
        if scope["type"] == "http" and scope["method"] in BODY_METHODS:
            headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
            given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
            if not given.lower().startswith(b"multipart/"):
                scope = {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)
