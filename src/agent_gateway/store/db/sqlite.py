"""SQLite: the engine of a file, and who uses its connections for what."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import in_greenlet

from agent_gateway.errors import StoreUnavailable
from agent_gateway.limits import DatabaseLimits
from agent_gateway.store.db.connections import Pool, latest, permit

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
"""A part of a transaction."""

_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "busy_timeout = 5000",
)
STATEMENTS: Final = 128
"""Statements that a connection keeps prepared."""


def sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    """Connections to this file; dispose it."""
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=10, hide_parameters=True
    )

    def connect(connection: Any, _record: object) -> None:
        # The driver must not begin transactions itself; `begin` does.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: a transaction that reads first cannot be upgraded once
        # another writer has committed.
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    def invalidate(connection: Any, _record: object, error: BaseException | None) -> None:
        # A cancelled write may leave rows of its RETURNING unread. Closing the connection is not enough
        # then: it would keep the write lock until that cursor is collected.
        if error is not None:
            connection.rollback()

    def terminate(connection: Any) -> None:
        # The driver would stop the thread of a connection while a task is closing it. That task would
        # wait for ever, and at its end the process would wait for that task.
        if in_greenlet():
            connection.close()
        else:
            connection.terminate()

    engine.dialect.do_terminate = terminate  # type: ignore[method-assign]
    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", begin)
    event.listen(engine.sync_engine, "invalidate", invalidate)
    return engine


class _OwnThread:
    """A connection of the driver, used by one thread: it is called once for all, not once per statement."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{name}")
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    async def write(self, works: Sequence[Work]) -> list[Any]:
        """Call these in one transaction; returns for each its result, or the exception that it raised.

        What is due in the same moment shares it: turns write the same few pages again and again, and a commit
        writes each of its pages once.
        """
        if self._closed:
            raise StoreUnavailable("this process is leaving")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._each, works)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call this without a transaction; returns its result."""
        if self._closed:
            raise StoreUnavailable("this process is leaving")
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._opened()))

    async def open(self) -> None:
        """Open the connection now."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._opened)

    async def close(self) -> None:
        """Close it."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=STATEMENTS)
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            self._connection = connection
        return self._connection

    def _each(self, works: Sequence[Work]) -> list[Any]:
        try:
            return self._transaction(works)
        except Exception as error:  # noqa: BLE001 - it belongs to one of those that wait
            if len(works) == 1:
                return [error]
        # Nothing was committed: each goes alone now, and fails alone. The disk may be full for the largest.
        return [result for work in works for result in self._each([work])]

    def _transaction(self, works: Sequence[Work]) -> list[Any]:
        connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [work(connection) for work in works]
            connection.execute("COMMIT")
        except BaseException:
            try:
                connection.rollback()
            except sqlite3.Error:
                # It would stay in its transaction for ever.
                self._close()
            raise
        return results

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class FileConnections:
    """The pool of a process on SQLite: many readers, and one writer at a time, on a connection of its own."""

    def __init__(
        self,
        make: Callable[[int], AsyncEngine],
        path: str,
        pool_size: int,
        limits: DatabaseLimits,
    ) -> None:
        self._limits = limits
        self._size = pool_size + 1
        self._engine = make(self._size)
        self._readers = asyncio.Semaphore(pool_size)
        # SQLite allows one writer at a time. Queueing here is fair and needs no polling.
        self._writer = asyncio.Lock()
        self._writer_thread = _OwnThread(path, "writer")
        self._reader_thread = _OwnThread(path, "reader")
        self._due: list[tuple[Work, asyncio.Future[Any]]] = []
        """What the writer's thread has not begun."""

    @property
    def engines(self) -> list[AsyncEngine]:
        """Of all pools."""
        return [self._engine]

    @property
    def use(self) -> dict[str, tuple[int, int]]:
        """Of readers and of the one writer, how many connections are in use, and how many there may be."""
        readers = self._size - 1
        reading = readers - self._readers._value  # noqa: SLF001 - a semaphore tells it in no other way
        return {"requests": (reading, readers), "writer": (int(self._writer.locked()), 1)}

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        await self._writer_thread.close()
        await self._reader_thread.close()

    def abort(self) -> None:
        """Does nothing: a file always answers."""

    async def hold(self) -> None:
        """Open all connections: each needs a thread and descriptors, which may be gone later."""
        async with AsyncExitStack() as stack:
            for _ in range(self._size):
                await stack.enter_async_context(self._engine.connect())
        await self._writer_thread.open()
        await self._reader_thread.open()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call this within a transaction, on the driver's own connection; returns its result.

        The transaction has others' work, too, and may be tried twice. Not to be cancelled: the first one
        that is due writes for all that come before it has the writer.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._due.append((work, future))
        if len(self._due) == 1:
            async with self._writer:
                await self._write_due()
        return await future

    async def _write_due(self) -> None:
        due = self._due
        self._due = []
        try:
            results = await self._writer_thread.write([work for work, _ in due])
        except Exception as error:  # noqa: BLE001 - it belongs to those that wait
            results = [error] * len(due)
        for (_, future), result in zip(due, results, strict=True):
            if future.cancelled():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call this, which reads, on a driver's connection that no writer holds up; returns its result."""
        return await self._reader_thread.read(work)

    @asynccontextmanager
    async def writing(self, _: Pool) -> AsyncGenerator[AsyncConnection]:
        """A connection to write on."""
        async with self._writer, self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, *, anyhow: bool = False) -> AsyncGenerator[AsyncConnection]:
        """A connection to read on; here each reader gets one."""
        await permit(self._readers, latest(self._limits))
        try:
            async with self._engine.connect() as connection:
                yield connection
        finally:
            self._readers.release()
