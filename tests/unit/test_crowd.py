"""Many callbacks: all are called, in order, and other work runs between them."""

import asyncio
import socket

import pytest

from agent_gateway.crowd import AT_ONCE, Crowd, Ticker

MANY = 1_000

pytestmark = pytest.mark.anyio


async def until_called(called: list[int], count: int) -> None:
    async with asyncio.timeout(20):
        while len(called) < count:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0)


def crowd_of(count: int) -> tuple[Crowd, list[int]]:
    """A crowd, and the numbers of its members in the order in which they were called."""
    crowd = Crowd()
    called: list[int] = []
    for number in range(count):
        crowd.join(lambda number=number: called.append(number))
    return crowd, called


async def test_a_few_are_called_before_the_call_returns() -> None:
    crowd, called = crowd_of(AT_ONCE)
    crowd.call()
    assert called == list(range(AT_ONCE))


async def test_other_work_runs_between_the_members() -> None:
    """Counted: how many were called before a socket that was ready all the time was looked at."""
    crowd, called = crowd_of(MANY)
    at_probe: list[int] = []
    here, there = socket.socketpair()
    with here, there:
        loop = asyncio.get_running_loop()

        def look() -> None:
            here.recv(1)
            at_probe.append(len(called))
            if len(called) < MANY:
                there.send(b"x")

        loop.add_reader(here, look)
        there.send(b"x")
        crowd.call()
        await until_called(called, MANY)
        loop.remove_reader(here)
    assert called == list(range(MANY))
    assert len(at_probe) >= MANY // AT_ONCE / 2
    assert max(b - a for a, b in zip([0, *at_probe], at_probe, strict=False)) <= 2 * AT_ONCE


async def test_news_during_a_pass_reach_those_that_were_called_before_it() -> None:
    crowd, called = crowd_of(MANY)
    for _ in range(3):
        crowd.call()
    await until_called(called, 2 * MANY)
    for _ in range(2 * MANY // AT_ONCE):
        await asyncio.sleep(0)
    assert called == [*range(MANY), *range(MANY)]


async def test_one_that_leaves_while_another_is_called_is_not_called() -> None:
    crowd = Crowd()
    called: list[str] = []

    def last() -> None:
        called.append("last")

    def first() -> None:
        called.append("first")
        crowd.leave(last)
        crowd.leave(first)
        crowd.leave(first)

    crowd.join(first)
    crowd.join(last)
    for _ in range(2):
        crowd.call()
    assert called == ["first"]
    assert len(crowd) == 0


async def test_the_failure_of_one_does_not_reach_the_others_nor_the_caller() -> None:
    crowd = Crowd()
    called: list[int] = []
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def fail() -> None:
        raise ValueError

    crowd.join(fail)
    crowd.join(lambda: called.append(1))
    crowd.call()
    assert called == [1]
    assert [type(failure) for failure in failures] == [ValueError]


async def test_a_ticker_rests_while_it_has_no_members() -> None:
    ticker = Ticker(0.001)
    called: list[int] = []

    def member() -> None:
        called.append(ticker.ticks)

    for _ in range(2):
        ticker.join(member)
        await until_called(called, len(called) + 3)
        ticker.leave(member)
        # The tick after that finds nobody, and is the last one.
        async with asyncio.timeout(20):
            while ticker._timer is not None:  # noqa: ASYNC110 - a ticker has no event
                await asyncio.sleep(0.001)
    assert called == list(range(1, ticker.ticks + 1))
