"""The database: transactions and database time."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from agent_gateway.conditions import Condition
from agent_gateway.errors import StoreUnavailable
from agent_gateway.limits import DEFAULTS, DatabaseLimits
from agent_gateway.store.db.connections import Connections, Pool
from agent_gateway.store.db.errors import MappedErrors
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.postgres import COMMAND_SECONDS, Postgres, session_limits
from agent_gateway.store.db.prepared import PreparedForPostgres, PreparedForSqlite
from agent_gateway.store.db.shielded import ShieldedTasks
from agent_gateway.store.db.sqlite import FileConnections, sqlite_engine
from agent_gateway.store.db.sqlite_file import has_room
from agent_gateway.store.db.url import async_url, postgres_address

T = TypeVar("T")

PING_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class DatabaseClock:
    """The database's time without a query: what it said last, plus the seconds since then.

    A process's own clock may be wrong, and may step. It is used only until the database has answered once.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None

    def __call__(self) -> float:
        """Seconds since 1970."""
        return time.time() if self._ahead is None else time.monotonic() + self._ahead

    def set(self, time_now: datetime) -> None:
        """Note what the database has just said."""
        self._ahead = time_now.timestamp() - time.monotonic()


class Database:
    """Connections and transactions. `close` it.

    Finishes ("duty") and heartbeats have connections of their own, so that a crowd of requests cannot
    make a process lose its turns (R6); see `connections.py`.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        lease_seconds: float = 8.0,
        limits: DatabaseLimits = DEFAULTS.database,
    ) -> None:
        self.url = async_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.clock = DatabaseClock()
        self._errors = MappedErrors(Condition(logger, "the database is away", self._is_full))
        self._close_seconds = limits.close_seconds
        self.shielded = ShieldedTasks()
        """Units of work that are not cancelled with those who wait for them: `await shielded(work)`."""
        self._postgres: Postgres | None = None
        if self.is_sqlite:
            self._connections: Connections | FileConnections = FileConnections(
                lambda size: sqlite_engine(self.url, size),
                self.url.database or "",
                pool_size,
                limits,
            )
        else:
            self._postgres = Postgres(
                postgres_address(self.url),
                session_limits(lease_seconds),
                COMMAND_SECONDS,
                trusted_seconds=limits.trusted_seconds,
            )
            self._connections = Connections(self._postgres.pooled_engine, pool_size, self.shielded, limits)

    async def hold(self) -> None:
        """Open the connections of heartbeats and duties before any for requests, and hold them."""
        await self._connections.hold()

    @asynccontextmanager
    async def transaction(self, pool: Pool = "requests") -> AsyncGenerator[AsyncConnection]:
        """A unit of work that writes: committed when the block ends, rolled back when it raises.

        Raises StoreUnavailable or StoreRejected; IntegrityError passes for callers that expect it.
        """
        with self._errors:
            async with self._connections.writing(pool) as connection, connection.begin():
                yield connection

    async def fetch(
        self, statement: PreparedForPostgres, values: Mapping[str, Any], pool: Pool = "requests"
    ) -> list[Any]:
        """On Postgres: one statement that is a transaction of its own, in one round trip; its rows.

        Raises StoreUnavailable or StoreRejected.
        """
        assert self._postgres is not None
        with self._errors:
            async with self._connections.writing(pool) as connection:
                return await self._postgres.fetch(connection, statement, values)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """On SQLite: call a function in a transaction, in the thread of the writer; returns its result.

        What is due in the same moment shares the transaction. When one of them raises, none is committed,
        and each is called again in a transaction of its own: it must do nothing but write. The caller must
        not be cancelled. Raises StoreUnavailable or StoreRejected.
        """
        assert isinstance(self._connections, FileConnections)
        with self._errors:
            return await self._connections.write(work)

    @asynccontextmanager
    async def reading(self, *, anyhow: bool = False) -> AsyncGenerator[AsyncSession]:
        """A unit of work that only reads; with `anyhow` on a reserved connection if there is no other."""
        with self._errors:
            async with self._connections.reading(anyhow=anyhow) as connection:
                if self.is_sqlite:
                    await connection.execution_options(sqlite_begin="DEFERRED")
                async with AsyncSession(connection, expire_on_commit=False) as session:
                    yield session

    async def ping(self) -> None:
        """Prove within a bound that the database answers, and on Postgres that it can be written.

        Raises StoreUnavailable. On SQLite it waits for no reader and for no writer, and does not read the
        file; the room on its disk says whether it can be written. It is not shielded: another task would wait
        for rounds of the event loop, and a busy process would not look ready. If it is cancelled on Postgres,
        its connection is lost.
        """
        with self._errors:
            async with asyncio.timeout(PING_SECONDS):
                if isinstance(self._connections, FileConnections):
                    # A probe comes while all is busy: a session would wait for the interpreter ten times.
                    row = await self._connections.read(lambda connection: _SQLITE_TIME.first(connection, {}))
                    assert row is not None
                    self.clock.set(row[0])
                    if self._is_full():
                        raise StoreUnavailable("the disk of the database is full")
                else:
                    await self._prove_writable()

    def _is_full(self) -> bool:
        """On SQLite: whether there is no room for a write. Most of what idles writes nothing."""
        return self.is_sqlite and not has_room(Path(self.url.database or ""))

    async def _prove_writable(self) -> None:
        assert self._postgres is not None
        [(time_now, read_only)] = await self.fetch(_TIME_AND_MODE, {})
        self.clock.set(time_now)
        if read_only == "on":
            self._postgres.distrust()
            raise StoreUnavailable("the database can only be read: a replica, or set to read only")

    @property
    def pool_use(self) -> dict[str, tuple[int, int]]:
        """Of each pool how many connections are in use, and how many it may have."""
        return self._connections.use

    def abort(self) -> None:
        """End all waiting for a database that does not answer. The database cannot be used after this."""
        self._connections.abort()

    async def now(self) -> datetime:
        """The database's time, which decides everything that more than one process sees."""
        async with self.reading() as session:
            time_now: datetime = (await session.execute(_TIME)).scalar_one()
        self.clock.set(time_now)
        return time_now

    async def close(self) -> None:
        """Close every connection, once the shielded work has had a moment to end."""
        if not await self.shielded.wait(self._close_seconds):
            self.abort()
            await self.shielded.wait(self._close_seconds)
        await self._connections.close()


_TIME = select(now_plus())
_SQLITE_TIME = PreparedForSqlite(_TIME)
_TIME_AND_MODE = PreparedForPostgres(
    # The mode is `on` also for a replica, and for a database that was set to read only.
    select(now_plus(), func.current_setting("transaction_read_only"))
)
