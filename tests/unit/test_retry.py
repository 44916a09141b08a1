"""Pauses and retries. The first pauses are real: a few tenths of a second."""

import asyncio
import logging

import pytest

from agent_gateway.retry import doubled, full_jitter, jittered, retry_while

pytestmark = pytest.mark.anyio


class Away(Exception):
    """A dependency is away for now."""


def test_jitter_leaves_at_least_half_of_a_pause() -> None:
    pauses = [jittered(4.0) for _ in range(200)]
    assert all(2.0 <= pause <= 4.0 for pause in pauses)
    assert len(set(pauses)) > 100


def test_full_jitter_spreads_over_the_whole_pause() -> None:
    pauses = [full_jitter(4.0) for _ in range(200)]
    assert all(0.0 <= pause <= 4.0 for pause in pauses)
    assert min(pauses) < 1.0
    assert max(pauses) > 3.0


def test_a_pause_doubles_up_to_the_longest() -> None:
    assert [doubled(failures, 0.5, 3.0) for failures in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_pause_does_not_overflow_after_many_failures() -> None:
    assert doubled(100_000, 0.1, 2.0) == 2.0


async def test_work_is_retried_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    async def work() -> str:
        tries.append(len(tries))
        if len(tries) < 3:
            raise Away("no route")
        return "done"

    with caplog.at_level(logging.DEBUG, logger="agent_gateway.retry"):
        async with asyncio.timeout(10):
            assert await retry_while(Away, work, "the disk") == "done"
    assert len(tries) == 3
    assert caplog.messages == ["the disk is not available, trying again: no route"] * 2


async def test_an_unlisted_error_is_not_retried() -> None:
    tries: list[int] = []

    async def work() -> None:
        tries.append(len(tries))
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await retry_while(Away, work, "the disk")
    assert len(tries) == 1


async def test_a_timeout_ends_the_retries() -> None:
    async def work() -> None:
        raise Away

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await retry_while(Away, work, "the disk")
