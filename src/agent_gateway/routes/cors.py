"""Lets the pages of some other origins call the API: plain ASGI, around everything, errors included."""

from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
EXPOSED: Final = "X-Turn-Events-URL, X-Task-Id, Retry-After"
"""Response headers that a page may read besides those it always may."""
PREFLIGHT_SECONDS: Final = 600
"""How long a browser remembers the answer to a preflight."""


def install(app: FastAPI, origins: frozenset[str]) -> None:
    """Wrap the whole app, outside of where unexpected errors are answered; nothing without origins."""
    if not origins:
        return
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: CrossOrigin(build(), origins)  # type: ignore[method-assign]


class CrossOrigin:
    """Answers preflights and marks responses, for requests from pages of exactly these origins.

    Without credentials: keys and tickets are sent by the page itself, never by the browser.
    """

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but preflights."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        added = self._permission(asked.get("origin"))
        if scope["method"] == "OPTIONS" and "access-control-request-method" in asked:
            await _answer_preflight(asked, added, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # Another page's answer must not be taken from a cache.
                headers.add_vary_header("Origin")
                headers.update(added)
            await send(message)

        await self._app(scope, receive, marked)

    def _permission(self, origin: str | None) -> dict[str, str]:
        if origin is None or origin not in self._origins:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}


async def _answer_preflight(asked: Headers, permission: dict[str, str], send: Send) -> None:
    """Without permission the answer says nothing, and the browser refuses its page."""
    headers = MutableHeaders({"Vary": "Origin, Access-Control-Request-Headers"})
    if permission:
        headers["Access-Control-Allow-Origin"] = permission["Access-Control-Allow-Origin"]
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        if wanted := asked.get("access-control-request-headers"):
            headers["Access-Control-Allow-Headers"] = wanted
    await send({"type": "http.response.start", "status": 204, "headers": headers.raw})
    await send({"type": "http.response.body", "body": b""})
