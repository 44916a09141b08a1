"""Counts what the event loop of a gateway does: calls, not time, so the figures are those of every machine.

The interpreter reports each call in the thread of the loop. So what other threads do, and what the loop and
other compiled libraries do within themselves, is not counted.
"""

import asyncio
import inspect
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from tests.support.gateway_server import GatewayServer

TIMERS: Final = ("call_at", "call_later")


@dataclass
class Work:
    """So much was done, in all."""

    calls: int = 0
    """Calls of functions, and of compiled ones by Python code; a coroutine that goes on counts as called."""
    callbacks: int = 0
    """How often the loop called into Python: callbacks, and steps of tasks."""
    switches: int = 0
    """The steps of tasks alone."""
    timers: int = 0
    """Timers that were set."""

    def copy(self) -> "Work":
        """As it is now."""
        return Work(**vars(self))

    def since(self, before: "Work", times: int) -> "Each":
        """What was done since then for each of so many events or turns."""
        return Each(**{name: (value - vars(before)[name]) / times for name, value in vars(self).items()})


@dataclass(frozen=True)
class Each:
    """Work for each of something."""

    calls: float
    callbacks: float
    switches: float
    timers: float


@contextmanager
def counted(server: GatewayServer) -> Generator[Work]:
    """The work of a gateway's event loop, counted on and on while the block runs."""
    work = Work()

    async def begin() -> None:
        # This coroutine is called by the loop, as all that is counted as a callback.
        loop_frame = sys._getframe(1)

        def count(frame: FrameType, event: str, _: object) -> None:
            if event == "call":
                work.calls += 1
                if frame.f_back is loop_frame:
                    work.callbacks += 1
                    work.switches += bool(frame.f_code.co_flags & inspect.CO_COROUTINE)
            elif event == "c_call":
                work.calls += 1

        def counting(name: str) -> Callable[..., asyncio.TimerHandle]:
            def set_timer(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
                work.timers += 1
                handle: asyncio.TimerHandle = getattr(type(loop), name)(loop, *arguments, **options)
                return handle

            return set_timer

        loop = asyncio.get_running_loop()
        # The interpreter does not report calls of the loop's own methods.
        vars(loop).update({name: counting(name) for name in TIMERS})
        sys.setprofile(count)

    async def end() -> None:
        sys.setprofile(None)
        for name in TIMERS:
            del vars(asyncio.get_running_loop())[name]

    server.run(begin())
    try:
        yield work
    finally:
        server.run(end())
