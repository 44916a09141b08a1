"""Conditions: what goes wrong for a while, for many at once.

A condition is told when it begins, once a minute, and at its end, however often it is met.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

AGAIN_SECONDS: Final = 60.0
"""Pause between two lines about a condition that goes on."""
OVER_SECONDS: Final = 2.0
"""How long all must have gone well before a condition counts as over. Where only some fail, it goes on."""


class Condition:
    """One thing that may go wrong for a while, as the database that does not answer."""

    def __init__(self, logger: logging.Logger, what: str, still: Callable[[], bool] = lambda: False) -> None:
        """`what` is the beginning of a sentence: "the database is away".

        `still` says whether the cause is there nevertheless when all goes well: what needs it may be rare.
        """
        self._logger = logger
        self._what = what
        self._still = still
        self._since = 0.0
        self._told = 0.0
        self._last = 0.0
        self._failures = 0
        self.holds = False
        """Whether it goes wrong now."""
        self._timer: asyncio.TimerHandle | None = None
        """Ends it, unless it is met before."""

    def met(self, why: object) -> None:
        """It went wrong; `why` is a text that is safe to log."""
        now = time.monotonic()
        self._last = now
        self._failures += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.holds:
            self.holds = True
            self._since = self._told = now
            self._logger.warning("%s: %s", self._what, why)
        elif now - self._told >= AGAIN_SECONDS:
            self._told = now
            self._tell("%s, for %.0f s now: %s", now, why)

    def passed(self) -> None:
        """It went well. Ask `holds` first where that is called often."""
        if not self.holds:
            return
        now = time.monotonic()
        left = self._last + OVER_SECONDS - now
        if left <= 0 and not self._still():
            self.holds = False
            self._tell("%s no longer, after %.0f s", now)
            self._failures = 0
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                left if left > 0 else OVER_SECONDS, self._settle
            )

    def _settle(self) -> None:
        self._timer = None
        self.passed()

    def _tell(self, text: str, now: float, *more: object) -> None:
        fields = {"failures": self._failures}
        self._logger.warning(text, self._what, now - self._since, *more, extra=fields)
