"""Group commit: writes that are due in the same moment go in one statement and one commit.

Nothing waits for others: a write that finds none on its way goes at once. Those that come while it is on its
way go together as soon as it is back, each with a result of its own. Questions can be asked in the same way:
none shares a query that began before it was asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from typing import Any, Final, Generic, TypeVar

from agent_gateway.errors import StoreRejected, StoreUnavailable
from agent_gateway.store.db.shielded import ShieldedTasks

Write = TypeVar("Write")
Outcome = TypeVar("Outcome")

MAX_WRITES: Final = 100
"""Writes of one statement."""
MAX_CHARACTERS: Final = 1_000_000
"""Of their texts; one that is longer goes alone."""


class GroupCommit(Generic[Write, Outcome]):
    """Call it with a write, and await its outcome."""

    def __init__(
        self,
        commit: Callable[[Sequence[Write]], Awaitable[Sequence[Outcome]]],
        shielded: ShieldedTasks,
        *,
        of: Callable[[Write], Collection[Hashable]],
        size: Callable[[Write], int] = lambda _: 0,
    ) -> None:
        """`commit` gives the outcomes in the order of its writes.

        Two writes that are `of` one thing are never in one statement. `size` is the length of its texts.
        """
        self._size = size
        self._commit = commit
        self._shielded = shielded
        self._of = of
        self._waiting: list[tuple[Write, asyncio.Future[Outcome]]] = []
        self._busy = False

    async def __call__(self, write: Write) -> Outcome:
        """Commit this write, alone or with others. Raises what its own commit raises."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, future))
        if not self._busy:
            self._busy = True
            self._shielded.start(self._run()).add_done_callback(self._stopped)
        return await future

    async def _run(self) -> None:
        while self._waiting:
            await self._commit_some(self._next())
        self._busy = False

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            # The process ends.
            _cancel(self._waiting)

    def _next(self) -> list[tuple[Write, asyncio.Future[Outcome]]]:
        """As many as may go together; their order is kept."""
        taken: list[tuple[Write, asyncio.Future[Outcome]]] = []
        left: list[tuple[Write, asyncio.Future[Outcome]]] = []
        things: set[Hashable] = set()
        size = 0
        for write, future in self._waiting:
            if future.cancelled():
                # Its caller has left before anything was sent.
                continue
            its = self._of(write)
            size += self._size(write)
            full = len(taken) == MAX_WRITES or (size > MAX_CHARACTERS and taken)
            if full or not things.isdisjoint(its):
                left.append((write, future))
            else:
                taken.append((write, future))
            things.update(its)
        self._waiting = left
        return taken

    async def _commit_some(self, some: "_Waiting") -> None:
        if not some:
            return
        try:
            outcomes = await self._commit([write for write, _ in some])
        except asyncio.CancelledError:
            _cancel(some)
            raise
        except StoreRejected as error:
            if len(some) == 1:
                _fail(some, error)
            else:
                # The data of one of them. None was committed: each goes alone now, and fails alone.
                await self._commit_each(some)
        except StoreUnavailable as error:
            # All or none were committed, and nobody knows which (R14); or none, if they were held up.
            for one in some:
                _fail([one], type(error)(str(error)))
        except Exception as error:  # noqa: BLE001 - it belongs to those that wait
            _fail(some, error)
        else:
            for (_, future), outcome in zip(some, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    async def _commit_each(self, some: "_Waiting") -> None:
        try:
            for one in some:
                await self._commit_some([one])
        finally:
            # Only after a cancellation there are some that were not tried.
            _cancel(some)


_Waiting = list[tuple[Any, asyncio.Future[Any]]]


def _fail(some: _Waiting, error: Exception) -> None:
    for _, future in some:
        if not future.done():
            future.set_exception(error)


def _cancel(some: _Waiting) -> None:
    for _, future in some:
        future.cancel()
