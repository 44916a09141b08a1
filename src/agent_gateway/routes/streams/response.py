"""SSE responses: the bodies of turns that are not live here, and the response that sends every body.

`TurnStream` departs from sse-starlette's EventSourceResponse on purpose:

1. Its body sends itself: ready bytes, from the reader's task or pushed from inside of an event (reader.py).
   Nothing is encoded or logged per event.
2. Pings come from one timer for all readers, not from a task for each.
3. It does not listen for the server's exit: drain ends the turns, and with them their streams.
4. Our server calls when the client leaves (wire.py), where the library has a task group of four tasks
   (0.5 ms of each turn). With another server, one task listens.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_gateway.errors import GatewayError, StoreUnavailable
from agent_gateway.retry import jittered
from agent_gateway.routes.http.middleware import HEAD_ONLY
from agent_gateway.routes.streams.frames import PING, RETRY_MS, retry
from agent_gateway.routes.streams.wire import StreamBody, Wire

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


def body_once_found(finding: Callable[[], Awaitable[StreamBody]], ping_seconds: float) -> StreamBody:
    """Frames of a turn that can only be found once the database is back; pings until then.

    EventSource never comes back after a status that is not 200, even if the reason is temporary. So it
    waits here. If there is no such turn, the stream ends, and the next request gets the error.
    """

    async def send(wire: Wire) -> None:
        await wire.send(retry(RETRY_MS))
        while True:
            await wire.send(PING)
            await asyncio.sleep(jittered(ping_seconds))
            try:
                found = await finding()
            except StoreUnavailable:
                continue
            except GatewayError:
                return
            await found(wire)
            return

    return send


class TurnStream(EventSourceResponse):
    """Sends one body until it ends or the client has left.

    The server cuts a client that does not read (server/connection.py); it may resume.
    """

    def __init__(self, body: StreamBody, headers: Mapping[str, str]) -> None:
        super().__init__(_no_events(), headers={**HEADERS, **headers})
        self._send_body = body

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if HEAD_ONLY in scope or await Wire(scope, send).carry(self._send_body, receive):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _no_events() -> AsyncGenerator[bytes]:
    """For the library's constructor: a body is not iterated here, it sends itself."""
    return
    yield b""
