"""A live turn's append-only event log: one producer, any number of readers, each with an index of its own.

A reader that has caught up is called as soon as there is more. Any other reads at its own pace: a slow one
lags behind and costs nothing but its index.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from sys import getsizeof

import msgspec

from agent_gateway.crowd import Crowd
from agent_gateway.domain.events import AgentThought, LLMChunk, MessageEnd, TurnEvent, TurnFailed


class EventLog:
    """The turn events so far, and the readers that have caught up with them."""

    def __init__(self) -> None:
        self.events: list[TurnEvent] = []
        self.closed = False
        """True after the terminal event, or when the turn continues in another process."""
        self.closes = False
        """True once the terminal event is there: in the same step of the loop it is closed."""
        self.frozen = False
        """True once nothing more may be kept for its readers."""
        self.events_size = 0
        """Bytes that its events take, about."""
        self.size = 0
        """The same with what is kept beside it for its readers."""
        self.readers = 0
        """How many read it now, caught up or not."""
        self.readers_ever = 0
        """How many have read it here, those that came back counted again."""
        self.caught_up = Crowd()
        """Called whenever there is news: more events, the end, or another place where to read on."""

    def extend(self, events: Sequence[TurnEvent]) -> None:
        """Append events, and tell the readers that have caught up."""
        if events:
            self.events += events
            size = sum(map(_size_of, events))
            self.events_size += size
            self.size += size
            self.closes = isinstance(events[-1], MessageEnd | TurnFailed)
            self.caught_up.call()

    def close(self) -> None:
        """Nothing more will be appended."""
        self.closed = True
        self.caught_up.call()

    def freeze(self) -> None:
        """From now on the log takes no more memory: nothing new is kept for its readers."""
        self.frozen = True

    def index_after(self, position: int) -> int:
        """Index of the first event beyond a position."""
        return bisect_right(self.events, position, key=lambda event: event.position)

    async def wait(self, index: int, seconds: float) -> None:
        """Wait until there is an event at `index` or the log is closed, but at most so long."""
        over = asyncio.get_running_loop().create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        def look() -> None:
            if len(self.events) > index or self.closed:
                end()

        self.caught_up.join(look)
        timer = over.get_loop().call_later(seconds, end)
        try:
            look()
            await over
        finally:
            timer.cancel()
            self.caught_up.leave(look)


def _size_of(event: TurnEvent) -> int:
    """Bytes that an event takes, about; the constants are those of its objects."""
    if event.__class__ is LLMChunk:
        return 80 + getsizeof(event.text)
    if isinstance(event, AgentThought):
        step = event.step
        return 400 + getsizeof(step.thought) + getsizeof(step.tool_input) + getsizeof(step.observation)
    return 400 + len(msgspec.json.encode(event))
