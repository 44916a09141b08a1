"""The times of one run, as its usage tells them."""

import time

from agent_gateway.domain.turns import Usage


class Stopwatch:
    """Seconds of one run on the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._first: float | None = None

    @property
    def has_seen(self) -> bool:
        """Whether there was an event."""
        return self._first is not None

    def saw_event(self) -> None:
        """Note the time of the agent's first event."""
        if self._first is None:
            self._first = time.monotonic()

    def usage(self, input_tokens: int, output_tokens: int) -> Usage:
        """Tokens and times so far. Prices are zero, as if unknown."""
        now = time.monotonic()
        first = now if self._first is None else self._first
        return Usage(
            prompt_tokens=input_tokens,
            completion_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            latency=round(now - self._start, 3),
            time_to_first_token=round(first - self._start, 3),
            time_to_generate=round(now - first, 3),
        )
