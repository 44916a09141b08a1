"""SSE responses: readers of a turn, live or from the rows, and the response that sends them.

`TurnStream` departs from sse-starlette's EventSourceResponse on purpose:

1. It is fed ready bytes and sends each item as it is; nothing is encoded or logged per event.
2. Pings come from the reader's own wait, not from a task of their own.
3. It does not listen for the server's exit: drain ends the turns, and with them their streams.
4. One task listens for the disconnect instead of a task group of four (0.5 ms of each turn).
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_gateway.domain.events import GATEWAY_REPLACE, Result, events_after
from agent_gateway.errors import GatewayError, StoreUnavailable
from agent_gateway.retry import jittered
from agent_gateway.routes.http.middleware import HEAD_ONLY
from agent_gateway.routes.streams.frames import MAX_WRITE, PING, FrameCache, FrameEncoder, FrameVariant
from agent_gateway.turns.live_turn import LiveTurn

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
RETRY_MS: Final = (1000, 3000)
"""When EventSource reconnects after a stream that broke: spread, since many break at once."""
HANDED_OVER_RETRY_MS: Final = (50, 1000)
"""The same for a reader that is sent elsewhere."""


async def live_frames(
    live: LiveTurn, cache: FrameCache, variant: FrameVariant, *, after: int, ping_seconds: float
) -> AsyncGenerator[bytes]:
    """Frames of a live turn beyond a position, all that piled up at once, pings when idle.

    When this process hands the turn over, a reader that carries ids is sent away to come back
    elsewhere; any other is served to the end (R12).
    """
    log = live.log
    with live.reading():
        index = log.index_after(after)
        if variant.ids:
            yield _retry(RETRY_MS)
        if index >= len(log.events) and not log.closed:
            yield PING
        while True:
            if log.closed and live.result is not None and live.runner.position < after < GATEWAY_REPLACE:
                # Another process sent this reader more of the run than this process ever folded.
                for piece in stored_frames(cache.encoder, live.result, variant, after):
                    yield piece
                    await asyncio.sleep(0)
                return
            # A log that is still being folded again may be behind what this reader has seen.
            index = max(index, log.index_after(after))
            data, reached = cache.read(variant, index)
            if reached > index:
                index = reached
                if data:
                    yield data
                if len(data) >= MAX_WRITE:
                    await asyncio.sleep(0)
            elif log.closed:
                return
            elif variant.ids and live.handed_over:
                yield _retry(HANDED_OVER_RETRY_MS)
                return
            elif not await log.wait(index, ping_seconds):
                yield PING


def _retry(between: tuple[int, int]) -> bytes:
    first, last = between
    return b"retry: %d\n\n" % (first + secrets.randbelow(last - first + 1))


def stored_frames(
    encoder: FrameEncoder, result: Result, variant: FrameVariant, after: int
) -> Iterator[bytes]:
    """The rest of an ended turn, from its stored result: whole frames, about MAX_WRITE bytes at once."""
    piece = bytearray()
    for event in events_after(result, after):
        piece += encoder.encode(event, variant)
        if len(piece) >= MAX_WRITE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


async def ended_frames(
    encoder: FrameEncoder, result: Result, variant: FrameVariant, after: int
) -> AsyncGenerator[bytes]:
    """A stream of nothing but the rest of an ended turn."""
    if variant.ids:
        yield _retry(RETRY_MS)
    for piece in stored_frames(encoder, result, variant, after):
        yield piece
        # A reader that takes everything at once must not keep the others waiting.
        await asyncio.sleep(0)


async def once_found(
    finding: Callable[[], Awaitable[AsyncGenerator[bytes]]], ping_seconds: float
) -> AsyncGenerator[bytes]:
    """Frames of a turn that can only be found once the database is back; pings until then.

    EventSource never comes back after a status that is not 200, even if the reason is temporary. So it
    waits here. If there is no such turn, the stream ends, and the next request gets the error.
    """
    yield _retry(RETRY_MS)
    while True:
        yield PING
        await asyncio.sleep(jittered(ping_seconds))
        try:
            frames = await finding()
        except StoreUnavailable:
            continue
        except GatewayError:
            return
        async with aclosing(frames):
            async for piece in frames:
                yield piece
        return


class TurnStream(EventSourceResponse):
    """Sends the frames of one reader until they end or the client is gone.

    The server cuts a client that does not read (server/connection.py); it may resume.
    """

    def __init__(self, frames: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(frames, headers={**HEADERS, **headers})
        self._frames = frames

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if HEAD_ONLY in scope:
            await self._frames.aclose()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        gone = asyncio.create_task(self._wait_for_disconnect(receive))
        try:
            async with aclosing(self._frames) as frames:
                async for data in frames:
                    if not self.active:
                        return
                    # One long text is one long frame: it, too, is not handed to the server at once.
                    for start in range(0, len(data), MAX_WRITE):
                        body = data[start : start + MAX_WRITE]
                        await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.active = False
