"""Signals: SIGTERM and SIGINT drain first, then do what the server had meant to do with them.

A worker whose parent has died does the same: nobody would start another one in its place, or tell it to stop.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


@contextmanager
def draining_first(drain: Callable[[float], Awaitable[None]], seconds: float) -> Generator[None]:
    """Put a drain before the server's own exit, while this is entered.

    The first signal drains for up to `seconds`, the second drains at once (turns that run are
    interrupted, visibly), the third waits for nobody.

    The server's handlers are in place by the time the application starts, whichever server it is and
    in each of its workers. In a thread there are no signals, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {sig: signal.getsignal(sig) for sig in SIGNALS}
    draining: list[asyncio.Task[None]] = []

    async def drain_then_exit(sig: int, frame: FrameType | None) -> None:
        try:
            await drain(seconds)
        finally:
            exit_now(sig, frame)

    async def drain_now() -> None:
        await drain(0)

    def exit_now(sig: int, frame: FrameType | None) -> None:
        if callable(before[sig]):
            before[sig](sig, frame)

    def handle(sig: int, frame: FrameType | None) -> None:
        # Runs between two byte codes, not in the loop: hand over and return.
        loop.call_soon_threadsafe(begin, sig, frame)

    def begin(sig: int, frame: FrameType | None) -> None:
        if not draining:
            draining.append(loop.create_task(drain_then_exit(sig, frame), name="drain"))
        elif len(draining) == 1:
            draining.append(loop.create_task(drain_now(), name="drain-now"))
        else:
            exit_now(sig, frame)

    for sig in SIGNALS:
        signal.signal(sig, handle)
    try:
        with _ending_with_parent(loop):
            yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


@contextmanager
def _ending_with_parent(loop: asyncio.AbstractEventLoop) -> Generator[None]:
    """Send SIGTERM to this process when the one that started it as a worker dies, while this is entered."""
    parent = multiprocessing.parent_process()
    if parent is None:
        yield
        return
    # It becomes readable when the parent is gone, however that died.
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
