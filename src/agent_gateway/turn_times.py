"""When what happened to one turn, as far as this process knows: seconds of the event loop's clock."""

import asyncio
import time

from agent_gateway.domain.turns import TakenFrom, Turn


class TurnTimes:
    """Times of one turn. The row has only its begin; the rest is forgotten with the process."""

    def __init__(self, turn: Turn, *, is_new: bool) -> None:
        """`is_new`: this process has just begun it."""
        now = asyncio.get_running_loop().time()
        self._begun = now if is_new else now - max(0.0, time.time() - turn.created_at)
        self._driven: float | None = None
        self._was_queued = False
        self._sent: float | None = None
        self._first_event: float | None = None

    def driven(self, turn: Turn) -> None:
        """This process drives the turn from now on."""
        if self._driven is None:
            self._driven = asyncio.get_running_loop().time()
            self._was_queued = turn.taken is TakenFrom.QUEUE

    def sent(self) -> None:
        """The request for its run is sent now."""
        self._sent = asyncio.get_running_loop().time()

    def heard(self) -> None:
        """Its run brought the first turn event, or a further one."""
        if self._first_event is None:
            self._first_event = asyncio.get_running_loop().time()

    @property
    def total(self) -> float:
        """Since its begin."""
        return asyncio.get_running_loop().time() - self._begun

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
