"""What a stream needs to outlive its connections: a resume point, and a budget for trying again."""

import asyncio
from collections.abc import Sequence

from agent_gateway.backend.protocol import TERMINAL, Cursors, RunEvent, decode_event, decode_usual_events
from agent_gateway.backend.sse import Frame
from agent_gateway.errors import BackendError, BackendGarbage, RunGap
from agent_gateway.limits import BackendLimits
from agent_gateway.retry import doubled, full_jitter


class ResumePoint:
    """Where a stream continues in the log of its run: the last two cursors."""

    def __init__(self, cursors: Cursors) -> None:
        self.before, self._last = cursors
        self._unproven = True

    def reconnected(self) -> None:
        """The next event has to prove that no event is missing since the last connection."""
        self._unproven = True

    def new_events(self, frames: Sequence[Frame]) -> tuple[list[RunEvent], BackendGarbage | None]:
        """The new events in these frames up to the first terminal one, and the error of what is no event.

        Events before an unreadable one are good, however the bytes were cut into reads. Raises RunGap when
        the first event after a reconnect is not the one that was delivered last.
        """
        if len(frames) > 1 and not self._unproven and (usual := decode_usual_events(frames)):
            return self._up_to_the_end(usual), None
        events: list[RunEvent] = []
        try:
            for cursor, _, data in frames:
                event = decode_event(data, cursor)
                if self._is_new(event):
                    events.append(event)
                if event.type in TERMINAL:
                    break
        except BackendGarbage as garbage:
            return events, garbage
        return events, None

    def _up_to_the_end(self, events: list[RunEvent]) -> list[RunEvent]:
        for number, event in enumerate(events, 1):
            if event.type in TERMINAL:
                del events[number:]
                break
        self.before, self._last = events[-2].id if len(events) > 1 else self._last, events[-1].id
        return events

    def _is_new(self, event: RunEvent) -> bool:
        """False for the one event that repeats the last delivered one."""
        if self._unproven:
            if not self.before and event.type != "run_started":
                raise RunGap("the run's log does not begin with its start")
            if self._last and event.id != self._last:
                raise RunGap("events are missing from the run's log")
            self._unproven = False
            if self._last:
                return False
        self.before, self._last = self._last, event.id
        return True


class ReconnectBudget:
    """Pauses between attempts, and a limit in seconds for the whole time without a connection.

    Only the time without a connection is spent: a silent connection costs nothing.
    """

    def __init__(self, seconds: float, limits: BackendLimits) -> None:
        self._seconds = seconds
        self._limits = limits
        self._spent = 0.0
        self.failures = 0
        """Attempts since the last progress that failed."""
        self._down_since: float | None = asyncio.get_running_loop().time()

    def connected(self) -> None:
        """Stop spending. What was spent comes back only with `renew`."""
        if self._down_since is not None:
            self._spent += asyncio.get_running_loop().time() - self._down_since
            self._down_since = None

    def renew(self) -> None:
        """There was progress: start again with the whole budget and with short pauses."""
        self._spent = 0.0
        self.failures = 0

    async def pause(self, error: BackendError) -> None:
        """Wait before the next attempt; raises `error` when the budget is used up."""
        now = asyncio.get_running_loop().time()
        if self._down_since is None:
            self._down_since = now
        first, longest = self._limits.first_pause_seconds, self._limits.longest_pause_seconds
        seconds = full_jitter(doubled(self.failures, first, longest))
        if self._spent + now - self._down_since + seconds > self._seconds:
            raise error
        self.failures += 1
        await asyncio.sleep(seconds)
