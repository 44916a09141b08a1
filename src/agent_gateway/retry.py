"""Retries with random pauses, so that many processes and turns do not retry at the same moment."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
MAX_DOUBLINGS: Final = 60

logger = logging.getLogger(__name__)
_random = random.SystemRandom()


def jittered(seconds: float) -> float:
    """A random pause: at least half of `seconds`, at most all of it."""
    return seconds * _random.uniform(0.5, 1.0)


def full_jitter(seconds: float) -> float:
    """A random pause of at most `seconds`; it spreads best, and may be close to 0."""
    return _random.uniform(0.0, seconds)


def doubled(failures: int, first: float, longest: float) -> float:
    """Seconds: `first`, doubled with each of these failures, but at most `longest`."""
    # Bounded, because a float overflows after a thousand doublings.
    return min(longest, first * 2 ** min(failures, MAX_DOUBLINGS))


async def retry_while(passing: type[Exception], work: Callable[[], Awaitable[T]], what: str) -> T:
    """Repeat the work while it raises `passing`, which says that `what` is not available.

    It never gives up: where there is a bound, the caller sets it with a timeout.
    """
    failures = 0
    while True:
        try:
            return await work()
        except passing as error:
            logger.debug("%s is not available, trying again: %s", what, error)
        await asyncio.sleep(jittered(doubled(failures, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)))
        failures += 1
