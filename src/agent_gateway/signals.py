"""Signals: SIGTERM and SIGINT drain first, and then do what the server does with them.

A worker whose parent has died also drains and exits: nothing is left that could replace or stop it.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


@contextmanager
def draining_first(drain: Callable[[float], Awaitable[None]], seconds: float) -> Generator[None]:
    """While entered, a signal starts a drain before the server's own exit.

    The first signal drains for up to `seconds`. The second drains at once: running turns are interrupted, and
    clients see it. The third exits without waiting.

    The server's handlers are in place when the application starts, in every server and in each worker. A
    thread gets no signals, so nothing is done there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    exits = _Exits(drain, seconds, {sig: signal.getsignal(sig) for sig in SIGNALS})

    def handle(sig: int, frame: FrameType | None) -> None:
        # Runs between two byte codes, not in the loop: only schedule the work.
        # It may interrupt the work on a turn, whose ids the log of the drain must not carry.
        loop.call_soon_threadsafe(exits.signalled, sig, frame, context=Context())

    for sig in SIGNALS:
        signal.signal(sig, handle)
    try:
        with _ending_with_parent(loop):
            yield
    finally:
        for sig, handler in exits.handlers.items():
            signal.signal(sig, handler)


class _Exits:
    """What the first, the second and the third signal of a process do."""

    def __init__(
        self, drain: Callable[[float], Awaitable[None]], seconds: float, handlers: dict[int, Any]
    ) -> None:
        self.handlers = handlers
        """The server's handlers."""
        self._drain = drain
        self._seconds = seconds
        self._drains: list[asyncio.Task[None]] = []
        """Kept here, because the loop has only weak references to tasks."""

    def signalled(self, sig: int, frame: FrameType | None) -> None:
        """Act on the next signal; called in the loop."""
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
    """While entered, send SIGTERM to this process when the parent that started it as a worker dies."""
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    # The sentinel becomes readable when the parent ends, for any reason.
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
