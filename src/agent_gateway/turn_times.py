"""When what happened to one turn, as far as this process knows: seconds of the event loop's clock."""

import asyncio
from collections.abc import Callable
from itertools import cycle
from typing import Final

from agent_gateway import metrics
from agent_gateway.domain.turns import TakenFrom, Turn

MEASURED: Final = 8
"""The gaps of one turn in so many are measured. To measure those of every turn would cost more than two
percent of all that is done for a token."""

_is_measured: Final = cycle((True, *[False] * (MEASURED - 1)))


class TurnTimes:
    """Times of one turn. The row has only its begin; the rest is forgotten with the process."""

    __slots__ = (
        "_begun",
        "_driven",
        "_first_event",
        "_gaps",
        "_last_event",
        "_now",
        "_sent",
        "_stopping",
        "_was_queued",
    )

    def __init__(self, turn: Turn, clock: Callable[[], float], *, is_new: bool) -> None:
        """`clock` is the database's time, in Unix seconds; `is_new`: this process has just begun it."""
        self._now = asyncio.get_running_loop().time
        now = self._now()
        self._begun = now if is_new else now - max(0.0, clock() - turn.created_at)
        self._driven: float | None = None
        self._was_queued = False
        self._sent: float | None = None
        self._first_event: float | None = None
        self._last_event = 0.0
        self._stopping: float | None = None
        self._gaps = metrics.gaps if metrics.is_on() and next(_is_measured) else None

    def driven(self, turn: Turn) -> None:
        """This process drives the turn from now on."""
        if self._driven is None:
            self._driven = self._now()
            self._was_queued = turn.taken is TakenFrom.QUEUE

    def sent(self) -> None:
        """The request for its run is sent now."""
        self._sent = self._now()

    def heard(self, now: float) -> bool:
        """A read of its run brought turn events, many or one; returns whether to tell of the next read."""
        if self._first_event is None:
            self._first_event = now
        elif self._gaps is not None:
            self._gaps.append(now - self._last_event)
        self._last_event = now
        return self._gaps is not None

    def stopping(self) -> None:
        """This process knows that a stop was asked for."""
        if self._stopping is None:
            self._stopping = self._now()

    @property
    def total(self) -> float:
        """Since its begin."""
        return self._now() - self._begun

    @property
    def queued(self) -> float:
        """How long it waited behind another turn."""
        return self._driven - self._begun if self._was_queued and self._driven is not None else 0.0

    @property
    def to_first_event(self) -> float | None:
        """From its begin, or from the end of its waiting, to the first turn event; None if there was none."""
        if self._first_event is None:
            return None
        return self._first_event - self._begun - self.queued

    @property
    def of_backend(self) -> float | None:
        """The part of that which the backend took, from the request for the run on; None if not known."""
        if self._first_event is None or self._sent is None:
            return None
        return self._first_event - self._sent

    @property
    def since_stop(self) -> float | None:
        """Since this process knows that a stop was asked for; None when none was."""
        return None if self._stopping is None else self._now() - self._stopping
