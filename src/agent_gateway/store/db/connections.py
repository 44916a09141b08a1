"""The connections to Postgres: what each pool is for, and who gets them when there are too few.

Requests have a pool of their own. Finishes and the other duties have two connections, heartbeats have
one; these are opened before any other and held. When the database gives a process fewer connections
than it wants, requests share what is left, and give up theirs when a duty has none.
"""

import asyncio
import errno
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal

from asyncpg.exceptions import TooManyConnectionsError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import Pool as SqlPool
from sqlalchemy.util import greenlet_spawn

from agent_gateway import metrics
from agent_gateway.errors import StoreLeft, StoreUnavailable
from agent_gateway.limits import DatabaseLimits
from agent_gateway.store.db.shielded import ShieldedTasks

Pool = Literal["requests", "duty", "heartbeats"]

RESERVED: Final[Mapping[Pool, int]] = {"heartbeats": 1, "duty": 2}
"""Connections that no request may use."""
GIVE_WAY_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses before a duty tries again: until then the server has noticed that a connection was given up."""
ABORT_SECONDS: Final = 0.1

logger = logging.getLogger(__name__)


class _CountedPool:
    """The pool of an engine, and how many of its connections are open."""

    def __init__(self, engine: AsyncEngine, size: int) -> None:
        self.engine = engine
        self.size = size
        self.permits = asyncio.Semaphore(size)
        self._open: set[Any] = set()
        self._closed_at = -math.inf
        self.filling: asyncio.Task[None] | None = None
        event.listen(engine.sync_engine, "connect", self._connected)
        event.listen(engine.sync_engine, "close", self._closed)

    @property
    def opened(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def in_use(self) -> int:
        """How many are in use, or asked for."""
        return self.size - self.permits._value  # noqa: SLF001 - a semaphore tells it in no other way

    @property
    def closed_lately(self) -> bool:
        """True when the server may not have noticed yet that one of them is closed."""
        return time.monotonic() - self._closed_at < sum(GIVE_WAY_SECONDS)

    def abort(self) -> None:
        """Break all of them, at once."""
        for connection in list(self._open):
            connection.driver_connection.terminate()

    def _connected(self, connection: Any, _: object) -> None:
        self._open.add(connection)

    def _closed(self, connection: Any, _: object) -> None:
        self._open.discard(connection)
        self._closed_at = time.monotonic()


class Connections:
    """The pools of a process on Postgres; `make` makes an engine with so many connections."""

    def __init__(
        self,
        make: Callable[[int], AsyncEngine],
        pool_size: int,
        shielded: ShieldedTasks,
        limits: DatabaseLimits,
    ) -> None:
        self._shielded = shielded
        self._limits = limits
        self._requests = _CountedPool(make(pool_size), pool_size)
        self._reserved: dict[Pool, _CountedPool] = {
            pool: _CountedPool(make(size), size) for pool, size in RESERVED.items()
        }
        self._used = 0
        """Connections that requests use or ask for. The engine's pool forgets those it has given up."""
        self._holding = False
        self._giving_up = asyncio.Lock()
        self._aborted = False
        self._timers: set[asyncio.Timeout] = set()

    @property
    def engines(self) -> list[AsyncEngine]:
        """Of all pools."""
        return [counted.engine for counted in self._pools]

    @property
    def use(self) -> dict[str, tuple[int, int]]:
        """Of each pool how many connections are in use, and how many it may have."""
        pools = {"requests": self._requests, **self._reserved}
        return {name: (counted.in_use, counted.size) for name, counted in pools.items()}

    async def close(self) -> None:
        """Close every connection that is not in use."""
        for engine in self.engines:
            await engine.dispose()

    @property
    def _pools(self) -> list[_CountedPool]:
        return [self._requests, *self._reserved.values()]

    def abort(self) -> None:
        """Break every connection and open no more, so that nobody waits for a silent database."""
        self._aborted = True
        for counted in self._pools:
            counted.abort()
        # Connections that are still being opened cannot be broken like this.
        loop = asyncio.get_running_loop()
        for timer in list(self._timers):
            # A second abort must leave timers alone that have expired but are not through yet.
            if not timer.expired():
                timer.reschedule(loop.time() + ABORT_SECONDS)

    @asynccontextmanager
    async def _abortable(self) -> AsyncGenerator[AsyncExitStack]:
        if self._aborted:
            raise StoreLeft("this process is leaving")
        async with asyncio.timeout(None) as timer, AsyncExitStack() as stack:
            self._timers.add(timer)
            try:
                yield stack
            finally:
                self._timers.discard(timer)

    async def hold(self) -> None:
        """From now on no request gets a connection before those of heartbeats and duties are open."""
        self._holding = True

    @asynccontextmanager
    async def writing(self, pool: Pool) -> AsyncGenerator[AsyncConnection]:
        """A connection to write on. Raises the error of the database or of the pool when there is none."""
        async with self._abortable() as stack:
            if pool == "requests":
                yield await self._for_request(stack)
            else:
                yield await self._reserved_at_any_cost(stack, self._reserved[pool])

    @asynccontextmanager
    async def reading(self, *, anyhow: bool = False) -> AsyncGenerator[AsyncConnection]:
        """A connection to read on; `anyhow` takes a reserved one when there is none for requests."""
        async with self._abortable() as stack:
            yield await (self._for_any(stack) if anyhow else self._for_request(stack))

    async def _for_any(self, stack: AsyncExitStack) -> AsyncConnection:
        try:
            return await self._for_request(stack)
        except (StoreUnavailable, OSError) as error:
            if not _is_refused(error):
                raise
        try:
            return await self._reserved_at_any_cost(stack, self._reserved["duty"])
        except (StoreUnavailable, OSError) as error:
            if not _is_refused(error):
                raise
        return await self._reserved_at_any_cost(stack, self._reserved["heartbeats"])

    async def _for_request(self, stack: AsyncExitStack) -> AsyncConnection:
        until = latest(self._limits)
        while True:
            await permit(self._requests.permits, until)
            try:
                if self._holding:
                    for counted in self._reserved.values():
                        await self._filled(counted)
                return await self._opened(stack)
            except BaseException as error:
                if not _is_refused(error) or not self._requests.opened:
                    self._requests.permits.release()
                    raise
                if self._requests.opened > self._used:
                    # The pool offered the slot of a broken connection while another connection is open.
                    self._requests.permits.release()
                    continue
                # The open connections must suffice for a while: nobody gets this permit meanwhile.
                loop, release = asyncio.get_running_loop(), self._requests.permits.release
                loop.call_later(self._limits.grow_seconds, release)

    async def _opened(self, stack: AsyncExitStack) -> AsyncConnection:
        pool = self._requests.engine.pool
        self._used += 1
        try:
            connection = await self._requests.engine.connect()
        except BaseException:
            self._used -= 1
            raise

        async def give_back() -> None:
            try:
                if self._is_given_up(pool) and not connection.closed:
                    await connection.invalidate()
                await connection.close()
                if self._is_given_up(pool):
                    # It returned to that pool while it was rolled back, where nobody would use or close it.
                    await greenlet_spawn(pool.dispose)
            finally:
                # Only now may another request have it, although the request that used it is gone already.
                self._used -= 1
                self._requests.permits.release()

        async def end() -> None:
            # What waits for nobody cannot be cancelled in its middle; a task costs three rounds of the loop.
            waits = connection.in_transaction() or self._is_given_up(pool)
            await (self._shielded(give_back()) if waits else give_back())

        stack.push_async_callback(end)
        return connection

    async def _give_up(self) -> None:
        """Close the idle connections of requests, and those that are used when they come back."""
        # Two at once would lose the pool that the first one makes, and the connections in it.
        async with self._giving_up:
            await self._requests.engine.dispose()

    def _may_give(self) -> bool:
        """True when requests have a connection, or gave one up that the server may still count."""
        return bool(self._requests.opened) or self._giving_up.locked() or self._requests.closed_lately

    def _is_given_up(self, pool: SqlPool) -> bool:
        """True when requests had to give up the connections of this pool for a duty."""
        return pool is not self._requests.engine.pool

    async def _filled(self, counted: _CountedPool) -> None:
        """Open the missing connections of this pool; all requests wait for the same attempt."""
        if counted.opened >= counted.size:
            return
        if counted.filling is None or counted.filling.done():
            counted.filling = self._shielded.start(self._fill(counted))
        await asyncio.shield(counted.filling)

    async def _fill(self, counted: _CountedPool) -> None:
        async with AsyncExitStack() as stack:
            # All are held at once, because the pool hands out idle connections before it opens another.
            for _ in range(counted.size):
                # A connection in use counts as open: requests do not wait until it is back.
                if counted.opened < counted.size:
                    await self._reserved_at_any_cost(stack, counted)

    async def _reserved_at_any_cost(self, stack: AsyncExitStack, counted: _CountedPool) -> AsyncConnection:
        """A reserved connection; if necessary, requests give up theirs for it."""
        gave_way = False
        for pause in GIVE_WAY_SECONDS:
            try:
                return await self._reserved_connection(stack, counted)
            except (StoreUnavailable, OSError) as error:
                if not _is_refused(error) or not (gave_way or self._may_give()):
                    raise
            if not gave_way:
                gave_way = True
                logger.warning(
                    "the database gives fewer connections than this process may open "
                    "(AGENT_GATEWAY_DATABASE_POOL_SIZE and 3): requests get fewer"
                )
            # Once more if a request was faster.
            await self._shielded(self._give_up())
            await asyncio.sleep(pause)
        return await self._reserved_connection(stack, counted)

    async def _reserved_connection(self, stack: AsyncExitStack, counted: _CountedPool) -> AsyncConnection:
        """A reserved connection, once there is room in its pool."""
        async with AsyncExitStack() as opening:
            # A waiter in the engine's own pool is not woken when the connection it waits for fails to open.
            await permit(counted.permits, latest(self._limits))
            opening.callback(counted.permits.release)
            connection = await opening.enter_async_context(counted.engine.connect())
            stack.push_async_callback(opening.pop_all().aclose)
            return connection


def latest(limits: DatabaseLimits) -> float:
    """When a request that comes now stops waiting: the time of the event loop, in seconds."""
    return asyncio.get_running_loop().time() + limits.wait_seconds


async def permit(permits: asyncio.Semaphore, until: float) -> None:
    """Acquire one of these permits; StoreUnavailable when none is free until then."""
    if not permits.locked():
        await permits.acquire()
        return
    began = time.monotonic()
    try:
        async with asyncio.timeout_at(until):
            await permits.acquire()
    except TimeoutError:
        raise StoreUnavailable("no database connection was free") from None
    finally:
        metrics.POOL_WAIT_SECONDS.observe(time.monotonic() - began)


def _is_refused(error: BaseException) -> bool:
    """True when the database or the system gives this process no further connection."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    if isinstance(cause, OSError):
        return cause.errno in {errno.EMFILE, errno.ENFILE}
    return isinstance(cause, TooManyConnectionsError)
