"""Work with the database that runs to its end even when those who wait for it are cancelled."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class ShieldedTasks:
    """Call it with a unit of work, and await the result. The database that owns it waits for all of them.

    Half of an exchange with the database would leave its connection unusable, and a commit that is
    cancelled usually happens anyway.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a unit of work that is never cancelled."""
        return await asyncio.shield(self._begin(work, copy_context()))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a unit of work that several may wait for, each with `asyncio.shield`.

        Its log records carry no ids: it does not belong to the first that waits.
        """
        return self._begin(work, Context())

    def _begin(self, work: Coroutine[Any, Any, T], context: Context) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name="shielded", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self, seconds: float) -> bool:
        """Wait for what is still at work, at most so long. True when all of it has ended."""
        if not self._tasks:
            return True
        _, at_work = await asyncio.wait(list(self._tasks), timeout=seconds)
        return not at_work

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # The waiter may be gone: the error is retrieved, so that asyncio does not log it.
        if not task.cancelled():
            task.exception()
