"""Work with the database that goes on to its end although who waits for it is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

SHIELDED: Final = "shielded"
"""Name of the tasks that do it."""


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a unit of work that is never cancelled.

    Half a conversation with the database would leave its connection unusable, and a cancelled
    commit usually happens all the same.
    """
    task = asyncio.create_task(work, name=SHIELDED)
    # Nobody may be left to hear of its failure.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)
