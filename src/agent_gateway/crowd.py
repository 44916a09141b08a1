"""Many callbacks that are called together, without holding the event loop for all of them at once."""

import asyncio
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 32
"""Members that one round of the loop calls, so that other work runs between them."""

Member = Callable[[], None]


class Crowd:
    """Members that are called in the order in which they joined, a few in each round of the loop.

    A member may leave at any time, also while another one is called. It is not called after that.
    """

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}
        self._due: list[Member] = []
        """Those of the pass under way that were not called yet, the next one last."""
        self._again = False
        """There was news during the pass: those that were called before it are called once more."""

    def __len__(self) -> int:
        return len(self._members)

    def join(self, member: Member) -> None:
        """Be called from the next pass on."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """Be called no more; nothing happens to one that is not a member."""
        self._members.pop(member, None)

    def call(self) -> None:
        """Call every member at least once from now: the first ones before this returns."""
        if self._due:
            self._again = True
        elif len(self._members) == 1:
            # Most turns have one reader.
            (member,) = self._members
            _call(member)
        elif self._members:
            self._due = list(self._members)
            self._due.reverse()
            self._call_some()

    def _call_some(self) -> None:
        some = self._due[: -AT_ONCE - 1 : -1]
        del self._due[-AT_ONCE:]
        for member in some:
            if member in self._members:
                _call(member)
        if self._due:
            asyncio.get_running_loop().call_soon(self._call_some)
        elif self._again:
            self._again = False
            asyncio.get_running_loop().call_soon(self.call)


class Ticker:
    """One timer for a crowd: it calls every member every so many seconds, and rests while there is none."""

    def __init__(self, seconds: float) -> None:
        self.ticks = 0
        """How often it has called so far."""
        self._seconds = seconds
        self._crowd = Crowd()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, member: Member) -> None:
        """Be called from the next tick on."""
        self._crowd.join(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def leave(self, member: Member) -> None:
        """Be called no more; nothing happens to one that is not a member."""
        self._crowd.leave(member)

    def _tick(self) -> None:
        self._timer = None
        if self._crowd:
            self.ticks += 1
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tick)
            self._crowd.call()


def _call(member: Member) -> None:
    try:
        member()
    except Exception as error:  # noqa: BLE001 - one member's failure must not stop the others
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a member of a crowd failed", "exception": error}
        )
