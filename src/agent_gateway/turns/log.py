"""A live turn's append-only event log: one producer, any number of readers, each with an index of its own.

Readers pull: a slow one lags behind and costs nothing but its index.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from sys import getsizeof
from typing import Final

import msgspec

from agent_gateway.domain.events import AgentThought, LLMChunk, TurnEvent

WAKE_AT_ONCE: Final = 32
"""Readers that one round of the loop wakes, so that other work runs between them."""


class EventLog:
    """The turn events so far, and the readers that wait for more."""

    def __init__(self) -> None:
        self.events: list[TurnEvent] = []
        self.closed = False
        """True after the terminal event, or when the turn continues in another process."""
        self.frozen = False
        """True once nothing more may be kept for its readers."""
        self.events_size = 0
        """Bytes that its events take, about."""
        self.size = 0
        """The same with what is kept beside it for its readers."""
        self._waiters: dict[asyncio.Future[bool], None] = {}
        self._due: deque[asyncio.Future[bool]] = deque()
        """Waiters of an earlier wake that have not been woken yet."""

    def extend(self, events: Sequence[TurnEvent]) -> None:
        """Append events and wake every reader."""
        if events:
            self.events += events
            size = sum(map(_size_of, events))
            self.events_size += size
            self.size += size
            self.wake()

    def close(self) -> None:
        """Nothing more will be appended."""
        self.closed = True
        self.wake()

    def freeze(self) -> None:
        """From now on the log takes no more memory: nothing new is kept for its readers."""
        self.frozen = True

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
