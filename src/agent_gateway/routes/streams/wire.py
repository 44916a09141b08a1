"""The way to one client: takes the pieces of a response body, and knows when the client has left."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from agent_gateway.routes.streams.frames import MAX_WRITE
from agent_gateway.server.exchange import PUSH, Exchange


class ClientLeft(Exception):
    """The client has left: nobody needs the rest of the response."""


class Wire:
    """The way to one client, after the start of its response was sent.

    `send` works with every server. `push` needs one with the extension PUSH, as ours is; then it costs no
    switch of tasks.
    """

    __slots__ = ("_exchange", "_send", "last", "left", "on_leave")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.left = False
        """The client has left."""
        self.last = b""
        """The end of the body, which goes with the end of the response."""
        self.on_leave: Callable[[], None] | None = None
        """Called when the client leaves."""
        self._send = send
        self._exchange: Exchange | None = scope.get("extensions", {}).get(PUSH, {}).get("exchange")

    async def carry(self, body: "StreamBody", receive: Receive) -> bool:
        """Send a body while its client is there; False when the client has left."""
        listening = None
        if self._exchange is not None:
            self._exchange.follow(self._leave)
        else:
            listening = asyncio.create_task(self._wait_for_disconnect(receive))
        try:
            await body(self)
        except ClientLeft:
            pass
        finally:
            if listening is not None:
                listening.cancel()
        return not self.left

    async def send(self, data: bytes) -> None:
        """Send whole frames. Waits while the client does not read; raises ClientLeft."""
        # One long text is one long frame: it, too, is not handed to the server at once.
        for start in range(0, len(data), MAX_WRITE):
            if self.left:
                raise ClientLeft
            body = data[start : start + MAX_WRITE]
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    def push(self, data: bytes) -> bool:
        """Send whole frames at once; False when the client takes no more now, and nothing was sent."""
        return self._exchange is not None and self._exchange.push(data)

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.left = True
        if self.on_leave is not None:
            self.on_leave()


StreamBody = Callable[[Wire], Awaitable[None]]
"""Sends the whole body of a stream, up to its end; raises ClientLeft."""
