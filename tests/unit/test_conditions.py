"""What goes wrong for a while is told when it begins, once a minute, and at its end."""

import asyncio
import logging

import pytest

from agent_gateway import conditions
from agent_gateway.conditions import AGAIN_SECONDS, OVER_SECONDS, Condition

logger = logging.getLogger(__name__)


class Clock:
    """The time as a condition sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(conditions, "time", clock)
    return clock


@pytest.fixture
def condition() -> Condition:
    return Condition(logger, "the disk is away")


def test_a_condition_is_told_at_its_beginning_each_minute_and_at_its_end(
    clock: Clock, condition: Condition, caplog: pytest.LogCaptureFixture
) -> None:
    condition.passed()
    for _ in range(130):
        condition.met("no route")
        clock.now += 1
    clock.now += OVER_SECONDS
    condition.passed()
    condition.passed()
    assert caplog.messages == [
        "the disk is away: no route",
        f"the disk is away, for {AGAIN_SECONDS:.0f} s now: no route",
        f"the disk is away, for {2 * AGAIN_SECONDS:.0f} s now: no route",
        "the disk is away no longer, after 132 s",
    ]
    assert [record.__dict__.get("failures") for record in caplog.records] == [None, 61, 121, 130]
    condition.met("again")
    assert caplog.messages[-1] == "the disk is away: again"


def test_while_only_some_fail_a_condition_goes_on(
    clock: Clock, condition: Condition, caplog: pytest.LogCaptureFixture
) -> None:
    async def some() -> None:
        for _ in range(20):
            condition.met("no route")
            clock.now += OVER_SECONDS / 2
            condition.passed()
        assert condition.holds

    asyncio.run(some())
    assert caplog.messages == ["the disk is away: no route"]


def test_while_its_cause_is_there_a_condition_goes_on_however_well_all_goes(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    full = [True]

    async def some() -> None:
        condition = Condition(logger, "the disk is away", lambda: full[0])
        condition.met("no room")
        for _ in range(3):
            clock.now += 2 * OVER_SECONDS
            condition.passed()
        assert condition.holds
        full.clear()
        full.append(False)
        condition.passed()
        assert not condition.holds

    asyncio.run(some())
    assert caplog.messages == ["the disk is away: no room", "the disk is away no longer, after 12 s"]


def test_a_condition_ends_by_itself_when_nothing_asks_after_the_last_success(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conditions, "OVER_SECONDS", 0.01)

    async def once() -> None:
        condition = Condition(logger, "the disk is away")
        condition.met("no route")
        condition.passed()
        async with asyncio.timeout(10):
            while condition.holds:  # noqa: ASYNC110 - it has nothing to wait for
                await asyncio.sleep(0)

    asyncio.run(once())
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "the disk is away: no route",
        "the disk is away no longer",
    ]
