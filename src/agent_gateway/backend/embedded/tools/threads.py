"""Threads for functions that are not asynchronous.

They do not keep the process from ending, as those of the event loop would: a function may never return.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final

MAX_THREADS: Final = 40
"""Functions that run at once; those that were given up count until they return."""


class Threads:
    """Runs functions in threads, each call in one of its own."""

    def __init__(self, most: int = MAX_THREADS) -> None:
        self._free = asyncio.Semaphore(most)

    def asynchronous(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function as one that can be awaited, and given up."""
        if inspect.iscoroutinefunction(function):
            return function

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._free.acquire()
            return await self._started(functools.partial(function, *args, **kwargs))

        return call

    def _started(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        context = copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            self._free.release()
            if done.done():
                return  # it was given up
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = context.run(work)
            except Exception as raised:  # noqa: BLE001 - it is raised to the caller
                error = RuntimeError() if isinstance(raised, StopIteration) else raised
            except BaseException:  # noqa: BLE001 - a function must not end the process
                error = RuntimeError()
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=run, name="tool", daemon=True).start()
        return done
