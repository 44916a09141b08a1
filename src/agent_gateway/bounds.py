"""What cuts the work on a turn: its bounds in time, and what happens to it from outside."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from enum import Enum, auto

from agent_gateway.causes import Cause, Failure
from agent_gateway.limits import TurnLimits


class Interruption(Enum):
    """Why the work on a turn is cut."""

    OWNERSHIP = auto()
    """The owner or the row changed: the runner starts over, and the turn continues."""
    DEADLINE = auto()
    IDLE = auto()
    """The run said nothing for too long."""
    STOP_GRACE = auto()
    """A stopped run did not say in time how it ended."""
    SHUTDOWN = auto()
    """The process has to go, and no other process can take over."""

    @property
    def failure(self) -> Failure | None:
        """The failure that the turn ends with; None for a stop."""
        match self:
            case Interruption.STOP_GRACE:
                return None
            case Interruption.DEADLINE:
                return _too_long("TurnTooLong", "it took longer than AGENT_GATEWAY_TURN_TIMEOUT_SECONDS")
            case Interruption.IDLE:
                return _too_long("RunSilent", "its run said nothing for AGENT_GATEWAY_IDLE_TIMEOUT_SECONDS")
            case Interruption.OWNERSHIP:
                return interrupted("OwnerChanged", "the turn was cut to start over")
            case Interruption.SHUTDOWN:
                return interrupted("ProcessStopped", "its process stopped, and no other one could go on")


def interrupted(kind: str, said: str) -> Failure:
    """The failure of a turn that was interrupted before its run ended."""
    return Failure("turn_interrupted", Cause(kind, said=said))


def _too_long(kind: str, said: str) -> Failure:
    return Failure("turn_timeout", Cause(kind, said=said))


class Bounds:
    """Runs the work on one turn until it is done or cut, and knows why it was cut."""

    def __init__(self, limits: TurnLimits, idle_seconds: float) -> None:
        self.why: Interruption | None = None
        """SHUTDOWN stays; any other is forgotten when the runner starts over."""
        self.sending = False
        """True between arming the row and knowing the run's id: OWNERSHIP waits for that (R4)."""
        self.idle_seconds = idle_seconds
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        """When the run said something last, or when the work began."""
        self._deadline: float | None = None
        self._stop_by: float | None = None
        self._next = Interruption.DEADLINE
        """What it means when the timer expires by itself."""
        self._timer: asyncio.TimerHandle | None = None
        """When the next bound may be reached: not later, but perhaps too early."""
        self._cutter: asyncio.Timeout | None = None

    @property
    def is_working(self) -> bool:
        """True while there is work that may be cut."""
        return self._cutter is not None

    @property
    def stopping(self) -> bool:
        """True once a stop was asked for."""
        return self._stop_by is not None

    def stop(self) -> None:
        """From now on the run has a moment to say how it ended."""
        if self._stop_by is None:
            self._stop_by = self._loop.time() + self._limits.stop_seconds
            self.check()

    def cut(self, why: Interruption) -> None:
        """Cut the work now; while a run is being created, OWNERSHIP cuts it later."""
        if self.why is not Interruption.SHUTDOWN:
            self.why = why
        self.check()

    def start_over(self) -> None:
        """The runner has seen why the work was cut, and looks at its turn anew."""
        if self.why is not Interruption.SHUTDOWN:
            self.why = None

    def heard_within(self, seconds: float) -> bool:
        """True when the run said something so lately, or the work began."""
        return self._loop.time() - self._heard <= seconds

    def apply(self, deadline: float) -> None:
        """The turn is ours now: the work that is under way has bounds in time from now on."""
        self._deadline = deadline
        self._heard = self._loop.time()
        self.check()

    @contextmanager
    def sending_run(self) -> Generator[None]:
        """Around the request for a run, up to knowing its id."""
        self.sending = True
        try:
            yield
        finally:
            self.sending = False
            self.check()

    def heard(self) -> float:
        """The run said something; returns the time. It is called for every read, and so it moves no timer."""
        now = self._heard = self._loop.time()
        return now

    def check(self) -> None:
        """Cut the work if that is due; otherwise check again when the next bound may be reached."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._cutter is None or self._cutter.expired():
            return
        now = self._loop.time()
        if self.why is Interruption.SHUTDOWN or (self.why is Interruption.OWNERSHIP and not self.sending):
            self._cutter.reschedule(now)
        elif self._deadline is not None:
            when, self._next = self._heard + self.idle_seconds, Interruption.IDLE
            if self._deadline < when:
                when, self._next = self._deadline, Interruption.DEADLINE
            if self._stop_by is not None and self._stop_by < when:
                when, self._next = self._stop_by, Interruption.STOP_GRACE
            if when <= now:
                self._cutter.reschedule(now)
            else:
                self._timer = self._loop.call_at(when, self.check)

    async def run(
        self, work: Callable[[], Awaitable[Failure | None]], deadline: float | None
    ) -> Failure | None:
        """Do this until it is done or cut; returns what it returns, or the failure of the interruption.

        Without a deadline, as for a turn of another process, there are no bounds in time.
        """
        self._deadline = deadline
        self._heard = self._loop.time()
        try:
            async with asyncio.timeout(None) as self._cutter:
                self.check()
                return await work()
        except TimeoutError:
            self.why = self.why or self._next
            return self.why.failure
        finally:
            self._cutter = None
            self.check()
