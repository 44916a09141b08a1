"""SSE responses: the bodies of turns that are not live here, and the response that sends every body.

`TurnStream` departs from sse-starlette's EventSourceResponse on purpose:

1. Its body sends itself: ready bytes, from the reader's task or pushed from inside of an event (reader.py).
   Nothing is encoded or logged per event.
2. Pings come from one timer for all readers, not from a task for each.
3. It does not listen for the server's exit: drain ends the turns, and with them their streams.
4. Our server calls when the client leaves (wire.py), where the library has a task group of four tasks
   (0.5 ms of each turn). With another server, one task listens.
5. The headers that all have in common are made once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_gateway.errors import GatewayError, StoreUnavailable
from agent_gateway.retry import jittered
from agent_gateway.routes.http.middleware import HEAD_ONLY
from agent_gateway.routes.streams.frames import PING, RETRY_MS, retry
from agent_gateway.routes.streams.wire import StreamBody, Wire


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
        """`headers` are those of this one response."""
        # Not the library's constructor, which prepares tasks, locks and an iterator: 40 us for nothing.
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            *_COMMON,
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()),
        ]
        self._send_body = body

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        wire = Wire(scope, send)
        if HEAD_ONLY in scope or await wire.carry(self._send_body, receive):
            await send({"type": "http.response.body", "body": wire.last, "more_body": False})


_COMMON: Final = EventSourceResponse(
    iter(()),
    headers={"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
).raw_headers
"""The headers of every event stream."""
