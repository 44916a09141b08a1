"""A live turn's append-only event log: one producer, any number of readers with an index each.

A frame is encoded by the first reader of its wire form and shared by all others. Readers pull: a
slow one lags behind, costs nothing but its index, and gets everything that piled up in one write.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

from agent_gateway.events import LLMChunk, TurnEvent

Form = TypeVar("Form", bound=Hashable)

MAX_WRITE: Final = 256 * 1024
"""Bytes after which a read stops, so that no reader is handed a whole long log at once."""


class EventLog(Generic[Form]):
    """The turn events so far; `encode` makes the frame of an event in a wire form."""

    def __init__(self, encode: Callable[[TurnEvent, Form], bytes]) -> None:
        self.events: list[TurnEvent] = []
        self.closed = False
        """True after the terminal event, or when the log ends here and goes on elsewhere."""
        self.encode = encode
        self._frames: dict[Form, list[bytes]] = {}
        self._waiters: set[asyncio.Future[bool]] = set()

    def extend(self, events: Sequence[TurnEvent]) -> None:
        """Append events and wake every reader."""
        if events:
            self.events += events
            self.wake()

    def close(self) -> None:
        """Nothing will be appended any more."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Wake every reader, to look at more than this log."""
        for woken in self._waiters:
            _resolve(woken, True)

    def index_after(self, position: int) -> int:
        """Index of the first event beyond a position."""
        return bisect_right(self.events, position, key=lambda event: event.position)

    def read(self, form: Form, index: int) -> tuple[bytes, int]:
        """Frames from an index on, joined, and the index to go on from; empty when there are none."""
        frames = self._frames.setdefault(form, [])
        if len(frames) < len(self.events):
            encode = self.encode
            frames += [encode(event, form) for event in self.events[len(frames) :]]
        if index + 1 == len(frames):
            return frames[index], index + 1
        end, size = index, 0
        while end < len(frames) and size < MAX_WRITE:
            size += len(frames[end])
            end += 1
        return b"".join(frames[index:end]), end

    async def wait(self, index: int, seconds: float) -> bool:
        """Wait until there is an event at `index` or the log is closed; False when it took too long."""
        if len(self.events) > index or self.closed:
            return True
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[bool] = loop.create_future()
        self._waiters.add(woken)
        timer = loop.call_later(seconds, _resolve, woken, False)
        try:
            return await woken
        finally:
            timer.cancel()
            self._waiters.discard(woken)

    @property
    def size(self) -> int:
        """Bytes of its frames and texts: what keeping this log costs, roughly."""
        frames = sum(len(frame) for frames in self._frames.values() for frame in frames)
        return frames + sum(len(event.text) + 100 for event in self.events if isinstance(event, LLMChunk))


def _resolve(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
