"""How often and after which pauses a request is repeated: pure, but for the random part of a pause."""

import random
from dataclasses import dataclass
from typing import Final

from agent_gateway_client.errors import ConnectionLost, GatewayError, UnexpectedResponse

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Retry:
    """The bounds of what the client repeats by itself."""

    attempts: int = 10
    """Failures in a row after which the last one is raised. 0: nothing is repeated."""
    first_seconds: float = 0.25
    """The first pause. Each further one is twice as long, and all are shortened at random, by up to half."""
    longest_seconds: float = 8.0
    """The longest pause that is not asked for by a `Retry-After`."""
    longest_asked_seconds: float = 60.0
    """A `Retry-After` that asks for more than this ends the attempts."""


DEFAULT: Final = Retry()
"""Gives a gateway about three quarters of a minute to come back."""


class Attempts:
    """The failures in a row of one request or one stream."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self.failures = 0
        """How many there were since the last success."""

    def succeeded(self) -> None:
        """Begin to count anew."""
        self.failures = 0

    def pause_after(self, failure: GatewayError) -> float:
        """The seconds to wait before the next try; raises the failure when there is none."""
        retry = self._retry
        asked = failure.retry_after
        too_long = asked is not None and asked > retry.longest_asked_seconds
        if self.failures >= retry.attempts or too_long:
            raise failure
        # A float overflows after a thousand doublings.
        doubled = min(retry.longest_seconds, retry.first_seconds * 2 ** min(self.failures, 60))
        self.failures += 1
        pause = doubled * _random.uniform(0.5, 1.0)
        return pause if asked is None else asked + pause


def is_passing(failure: GatewayError) -> bool:
    """Whether a later try of the same request may have another result.

    A failed turn keeps its error under its Idempotency-Key. So an error of the gateway passes only when it
    says when to come back, or when even the gateway does not know what it was.
    """
    if isinstance(failure, ConnectionLost):
        return True
    if isinstance(failure, UnexpectedResponse):
        return failure.status >= 500 or failure.status == 429
    return failure.retry_after is not None or failure.code == "internal_server_error"
