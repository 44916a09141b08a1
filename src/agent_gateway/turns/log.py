"""A live turn's append-only event log: one producer, any number of readers with an index each.

A frame is encoded by the first reader of its wire form and shared by all others. Readers pull: a
slow one lags behind, costs nothing but its index, and gets everything that piled up in one write.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from sys import getsizeof
from typing import Final, Generic, TypeVar

import msgspec

from agent_gateway.domain.events import AgentThought, LLMChunk, TurnEvent

Form = TypeVar("Form", bound=Hashable)

MAX_WRITE: Final = 256 * 1024
"""Bytes after which a read stops, so that no reader is handed a whole long log at once."""
WAKE_AT_ONCE: Final = 32
"""Readers that one round of the loop wakes: whoever else wants to be served comes in between."""


class EventLog(Generic[Form]):
    """The turn events so far; `encode` makes the frame of an event in a wire form."""

    def __init__(self, encode: Callable[[TurnEvent, Form], bytes]) -> None:
        self.events: list[TurnEvent] = []
        self.closed = False
        """True after the terminal event, or when the log ends here and goes on elsewhere."""
        self.told_size = 0
        """Bytes that its events take, about."""
        self.size = 0
        """The same with the frames that are kept for other readers."""
        self.encode = encode
        self._frames: dict[Form, list[bytes | None]] = {}
        self._frozen = False
        self._waiters: dict[asyncio.Future[bool], None] = {}
        self._due: deque[asyncio.Future[bool]] = deque()
        """Those of an earlier wake that have not been woken yet."""

    def extend(self, events: Sequence[TurnEvent]) -> None:
        """Append events and wake every reader."""
        if events:
            self.events += events
            size = sum(map(_size_of, events))
            self.told_size += size
            self.size += size
            self.wake()

    def close(self) -> None:
        """Nothing will be appended any more."""
        self.closed = True
        self.wake()

    def freeze(self) -> None:
        """From now on it takes no more memory: frames that nobody has read yet are not kept."""
        self._frozen = True

    def wake(self) -> None:
        """Wake every reader, to look at more than this log; all within a few rounds of the loop."""
        is_waking = bool(self._due)
        self._due.extend(self._waiters)
        self._waiters.clear()
        if not is_waking:
            self._wake_some()

    def _wake_some(self) -> None:
        for _ in range(min(WAKE_AT_ONCE, len(self._due))):
            _resolve(self._due.popleft(), True)
        if self._due:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def index_after(self, position: int) -> int:
        """Index of the first event beyond a position."""
        return bisect_right(self.events, position, key=lambda event: event.position)

    def read(self, form: Form, index: int) -> tuple[bytes, int]:
        """Frames from an index on, joined, and the index to go on from; empty when there are none."""
        frames = self._frames.setdefault(form, [])
        if (missing := len(self.events) - len(frames)) > 0:
            # Only places: nobody waits here for what a late reader has seen long ago.
            frames += [None] * missing
        if index + 1 == len(frames):
            return self._frame(frames, form, index), index + 1
        found: list[bytes] = []
        end, size = index, 0
        while end < len(frames) and size < MAX_WRITE:
            frame = self._frame(frames, form, end)
            found.append(frame)
            size += len(frame)
            end += 1
        return b"".join(found), end

    def _frame(self, frames: list[bytes | None], form: Form, index: int) -> bytes:
        frame = frames[index]
        if frame is None:
            frame = self.encode(self.events[index], form)
            if not self._frozen:
                frames[index] = frame
                self.size += getsizeof(frame)
        return frame

    async def wait(self, index: int, seconds: float) -> bool:
        """Wait until there is an event at `index` or the log is closed; False when it took too long."""
        if len(self.events) > index or self.closed:
            return True
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[bool] = loop.create_future()
        self._waiters[woken] = None
        timer = loop.call_later(seconds, _resolve, woken, False)
        try:
            return await woken
        finally:
            timer.cancel()
            self._waiters.pop(woken, None)


def _size_of(event: TurnEvent) -> int:
    """Bytes that an event takes, about; the constants are those of its objects."""
    if event.__class__ is LLMChunk:
        return 80 + getsizeof(event.text)
    if isinstance(event, AgentThought):
        step = event.step
        return 400 + getsizeof(step.thought) + getsizeof(step.tool_input) + getsizeof(step.observation)
    return 400 + len(msgspec.json.encode(event))


def _resolve(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
