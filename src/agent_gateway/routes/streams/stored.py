"""An ended turn as a stream, from its stored result."""

import asyncio
from collections.abc import Iterator

from agent_gateway.domain.events import Result, events_after
from agent_gateway.routes.streams.frames import MAX_WRITE, RETRY_MS, FrameEncoder, FrameVariant, retry
from agent_gateway.routes.streams.wire import StreamBody, Wire


def ended_body(encoder: FrameEncoder, result: Result, variant: FrameVariant, after: int) -> StreamBody:
    """A stream of nothing but the rest of an ended turn."""

    async def send(wire: Wire) -> None:
        if variant.ids:
            await wire.send(retry(RETRY_MS))
        await send_stored(wire, encoder, result, variant, after)

    return send


async def send_stored(
    wire: Wire, encoder: FrameEncoder, result: Result, variant: FrameVariant, after: int
) -> None:
    """Send the rest of an ended turn."""
    for piece in stored_frames(encoder, result, variant, after):
        await wire.send(piece)
        # A reader that takes everything at once must not keep the others waiting.
        await asyncio.sleep(0)


def stored_frames(
    encoder: FrameEncoder, result: Result, variant: FrameVariant, after: int
) -> Iterator[bytes]:
    """The rest of an ended turn: whole frames, about MAX_WRITE bytes at once."""
    piece = bytearray()
    for event in events_after(result, after):
        piece += encoder.encode(event, variant)
        if len(piece) >= MAX_WRITE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
