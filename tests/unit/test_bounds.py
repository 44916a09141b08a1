"""What cuts the work on a turn, and when: on a loop whose clock a test sets."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from typing_extensions import override

from agent_gateway.bounds import Bounds, Interruption
from agent_gateway.causes import Cause, Failure
from agent_gateway.limits import TurnLimits

LIMITS = replace(TurnLimits(), stop_seconds=5.0)
IDLE = 10.0
DONE = Failure("internal_server_error", Cause("Done"))


class Clock(asyncio.SelectorEventLoop):
    """A loop on which time passes only when a test says so; it counts the timers that are made."""

    now = 1000.0
    timers = 0

    @override
    def time(self) -> float:
        return self.now

    @override
    def call_at(self, when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(when, *args, **kwargs)

    async def pass_to(self, moment: float) -> None:
        """It is so many seconds after the beginning, and all that is due has happened."""
        self.now = 1000.0 + moment
        for _ in range(5):
            await asyncio.sleep(0)


class Work:
    """Work that takes until it is cut."""

    def __init__(self, clock: Clock, deadline: float | None = 100.0) -> None:
        self.bounds = Bounds(LIMITS, IDLE)
        self.released = asyncio.Event()
        until = None if deadline is None else 1000.0 + deadline
        self.task = asyncio.ensure_future(self.bounds.run(self._work, until))
        self._clock = clock

    async def _work(self) -> Failure | None:
        await self.released.wait()
        return DONE

    async def is_cut_at(self, moment: float, why: Interruption) -> None:
        """It goes on until just before that moment, and is cut there."""
        await self._clock.pass_to(moment - 0.01)
        assert not self.task.done()
        await self._clock.pass_to(moment)
        assert self.task.done()
        assert self.bounds.why is why
        assert self.task.result() == why.failure
        assert not self.bounds.is_working


def timed(test: Callable[[Clock], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=Clock) as runner:
            clock = runner.get_loop()
            assert isinstance(clock, Clock)
            runner.run(test(clock))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@timed
async def test_silence_cuts_exactly_after_the_last_event(clock: Clock) -> None:
    work = Work(clock)
    for moment in (3.0, 9.5, 12.0):
        await clock.pass_to(moment)
        work.bounds.heard()
    await work.is_cut_at(12.0 + IDLE, Interruption.IDLE)


@timed
async def test_silence_from_the_beginning_cuts(clock: Clock) -> None:
    work = Work(clock)
    await clock.pass_to(0)
    await work.is_cut_at(IDLE, Interruption.IDLE)


@timed
async def test_the_deadline_cuts_a_run_that_goes_on(clock: Clock) -> None:
    work = Work(clock, deadline=25.0)
    for moment in range(25):
        await clock.pass_to(moment)
        work.bounds.heard()
    await work.is_cut_at(25.0, Interruption.DEADLINE)


@timed
async def test_a_stop_cuts_after_its_grace_though_the_run_goes_on(clock: Clock) -> None:
    work = Work(clock)
    await clock.pass_to(2.0)
    work.bounds.stop()
    for moment in (3.0, 6.9):
        await clock.pass_to(moment)
        work.bounds.heard()
        work.bounds.stop()
    await work.is_cut_at(7.0, Interruption.STOP_GRACE)


@timed
async def test_events_make_no_timers(clock: Clock) -> None:
    work = Work(clock)
    await clock.pass_to(0)
    before = clock.timers
    for _ in range(1000):
        work.bounds.heard()
    assert clock.timers == before
    # One look for each time of silence that might have been, whatever happened in it.
    for moment in range(1, 60):
        await clock.pass_to(float(moment))
        work.bounds.heard()
    assert clock.timers - before <= 60 / (IDLE - 1)
    work.released.set()
    assert await work.task == DONE


@timed
async def test_without_a_deadline_only_an_interruption_cuts(clock: Clock) -> None:
    work = Work(clock, deadline=None)
    work.bounds.stop()
    await clock.pass_to(1e6)
    assert not work.task.done()
    work.bounds.cut(Interruption.OWNERSHIP)
    await clock.pass_to(1e6)
    assert work.task.result() == Interruption.OWNERSHIP.failure


@timed
async def test_bounds_can_begin_while_the_work_goes_on(clock: Clock) -> None:
    """The silence before that is not counted: the one who had to watch it was another process."""
    for deadline, moment, why in ((1000.0, 600.0, Interruption.IDLE), (5.0, 1195.0, Interruption.DEADLINE)):
        begun = clock.time() - 1000.0
        work = Work(clock, deadline=None)
        await clock.pass_to(begun)
        await clock.pass_to(begun + moment - IDLE)
        assert not work.task.done()
        work.bounds.apply(clock.time() + deadline)
        await work.is_cut_at(begun + moment - IDLE + min(IDLE, deadline), why)


@timed
async def test_another_owner_cuts_only_once_the_run_is_known(clock: Clock) -> None:
    """R4."""
    work = Work(clock)
    await clock.pass_to(0)
    with work.bounds.sending_run():
        work.bounds.cut(Interruption.OWNERSHIP)
        await clock.pass_to(1.0)
        assert not work.task.done()
        assert work.bounds.sending
    # Without waiting for an event of the run.
    await clock.pass_to(1.0)
    assert work.task.done()
    assert work.bounds.why is Interruption.OWNERSHIP


@timed
async def test_a_shutdown_cuts_at_once_and_stays_the_reason(clock: Clock) -> None:
    work = Work(clock)
    await clock.pass_to(0)
    with work.bounds.sending_run():
        work.bounds.cut(Interruption.SHUTDOWN)
        work.bounds.cut(Interruption.OWNERSHIP)
        await clock.pass_to(0)
        assert work.task.done()
    work.bounds.start_over()
    assert work.bounds.why is Interruption.SHUTDOWN


@timed
async def test_work_that_is_done_leaves_no_timer(clock: Clock) -> None:
    work = Work(clock)
    await clock.pass_to(0)
    work.released.set()
    assert await work.task == DONE
    assert not work.bounds.is_working
    await clock.pass_to(1e6)
    assert work.bounds.why is None
    assert work.bounds._timer is None


def test_every_reason_but_a_stop_has_a_failure() -> None:
    assert {why: why.failure and why.failure.code for why in Interruption} == {
        Interruption.OWNERSHIP: "turn_interrupted",
        Interruption.DEADLINE: "turn_timeout",
        Interruption.IDLE: "turn_timeout",
        Interruption.STOP_GRACE: None,
        Interruption.SHUTDOWN: "turn_interrupted",
    }
