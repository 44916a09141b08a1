"""Signals: SIGTERM and SIGINT drain first, and then do what the server does with them.

A worker whose parent has died drains and exits, too: no one is left to replace it or to stop it.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


@contextmanager
def draining_first(drain: Callable[[float], Awaitable[None]], seconds: float) -> Generator[None]:
    """Put a drain before the server's own exit, while this is entered.

    The first signal drains for up to `seconds`. The second drains at once: turns that run are interrupted,
    visibly. The third waits for nothing.

    The server's handlers are in place by the time the application starts, for every server and in each of
    its workers. A thread gets no signals, and nothing is done there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    exits = _Exits(drain, seconds, {sig: signal.getsignal(sig) for sig in SIGNALS})

    def handle(sig: int, frame: FrameType | None) -> None:
        # Runs between two byte codes, not in the loop: hand over and return.
        loop.call_soon_threadsafe(exits.signalled, sig, frame)

    for sig in SIGNALS:
        signal.signal(sig, handle)
    try:
        with _ending_with_parent(loop):
            yield
    finally:
        for sig, handler in exits.handlers.items():
            signal.signal(sig, handler)


class _Exits:
    """What each of the signals of one process does, in the order they come."""

    def __init__(
        self, drain: Callable[[float], Awaitable[None]], seconds: float, handlers: dict[int, Any]
    ) -> None:
        self.handlers = handlers
        """The server's own."""
        self._drain = drain
        self._seconds = seconds
        self._drains: list[asyncio.Task[None]] = []
        """Held here, since the loop holds tasks weakly."""

    def signalled(self, sig: int, frame: FrameType | None) -> None:
        """Called in the loop."""
        match len(self._drains):
            case 0:
                self._start(self._drain_then_exit(sig, frame), "drain")
            case 1:
                self._start(self._drain_now(), "drain-now")
            case _:
                self._exit(sig, frame)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._drains.append(asyncio.create_task(work, name=name))

    async def _drain_then_exit(self, sig: int, frame: FrameType | None) -> None:
        try:
            await self._drain(self._seconds)
        finally:
            self._exit(sig, frame)

    async def _drain_now(self) -> None:
        await self._drain(0)

    def _exit(self, sig: int, frame: FrameType | None) -> None:
        if callable(self.handlers[sig]):
            self.handlers[sig](sig, frame)


@contextmanager
def _ending_with_parent(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Send SIGTERM to this process when the one that started it as a worker dies, while this is entered."""
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    # It becomes readable when the parent is gone, whatever ended it.
    sentinel = parent.sentinel

    def end() -> None:
        loop.remove_reader(sentinel)
        logger.error("the parent of this worker has died: it drains and exits, start the service again")
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(sentinel, end)
    try:
        yield
    finally:
        loop.remove_reader(sentinel)
