"""The database: engines, transactions, database time, and the one seam where its errors are mapped."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from asyncpg.exceptions import InternalClientError
from sqlalchemy import URL, Connection, Double, Integer, cast, event, literal, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.util.concurrency import in_greenlet

from agent_gateway.errors import ConfigError, StoreRejected, StoreUnavailable
from agent_gateway.store.connections import UNDISTURBED, Connections, FileConnections, Pool
from agent_gateway.store.tables import UtcDateTime

T = TypeVar("T")
PING_SECONDS: Final = 5.0
_PASSING_SQLSTATES: Final = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")
"""Classes of connection, transaction, login, resource, lock, operator and system errors."""
_PASSING_SQLITE: Final = ("locked", "busy", "disk", "full", "i/o", "unable to open", "readonly")
CLOSE_SECONDS: Final = 2.0


class now_plus(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function it stands for
    """Database time plus some seconds. Leases and deadlines never use a process's own clock."""

    name = "now_plus"
    inherit_cache = True
    type = UtcDateTime()

    def __init__(self, seconds: float | BindParameter[Any] = 0.0) -> None:
        if isinstance(seconds, BindParameter):
            super().__init__(cast(seconds, Double()))
        else:
            super().__init__(literal(float(seconds), Double()))


@compiles(now_plus, "postgresql")
def _now_postgresql(element: now_plus, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(now_plus, "sqlite")
def _now_sqlite(element: now_plus, compiler: SQLCompiler, **kw: Any) -> str:
    # Not unixepoch('subsec'): it is NULL before SQLite 3.42.
    return f"((julianday('now') - 2440587.5) * 86400.0 + {compiler.process(element.clauses, **kw)})"


class this_minute(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function it stands for
    """Minutes since 1970 in database time, as a whole number."""

    name = "this_minute"
    inherit_cache = True
    type = Integer()


@compiles(this_minute, "postgresql")
def _minute_postgresql(element: this_minute, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(floor(extract(epoch FROM clock_timestamp()) / 60) AS integer)"


@compiles(this_minute, "sqlite")
def _minute_sqlite(element: this_minute, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 1440 AS INTEGER)"


def async_url(url: str) -> URL:
    """The URL with its async driver; accepts what other tools accept (`postgres://`, `sslmode`).

    Raises ConfigError for any other database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not its text: it quotes the URL, and with it a password.
        raise ConfigError("AGENT_GATEWAY_DATABASE_URL is no URL like postgresql://user@host/name.") from None
    name = parsed.get_backend_name()
    if name in ("postgres", "postgresql"):
        query = dict(parsed.query)
        if "sslmode" in query:
            query["ssl"] = query.pop("sslmode")
        return parsed.set(drivername="postgresql+asyncpg", query=query)
    if name == "sqlite":
        return parsed.set(drivername="sqlite+aiosqlite")
    raise ConfigError(f"AGENT_GATEWAY_DATABASE_URL is for {name}: only SQLite and Postgres are supported.")


class Database:
    """Connections and transactions. `close` it.

    What finishes ("duty") and heartbeats need, no crowd of requests can take from them, so that none
    can make a process lose its turns (R6); see `store.connections`.
    """

    def __init__(self, url: str, *, pool_size: int = 5, lease_seconds: float = 8.0) -> None:
        self.url = async_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._connections: Connections | FileConnections = FileConnections(
                lambda size: _sqlite_engine(self.url, size), pool_size
            )
        else:
            self._connections = Connections(
                lambda size: _postgres_engine(self.url, size, lease_seconds), pool_size
            )

    async def hold(self) -> None:
        """Open the connections of heartbeats and duties before any for requests, and hold them."""
        await self._connections.hold()

    @asynccontextmanager
    async def transaction(self, pool: Pool = "requests") -> AsyncGenerator[AsyncConnection]:
        """A unit of work that writes: committed when the block ends, rolled back when it raises.

        Raises StoreUnavailable or StoreRejected; IntegrityError passes for callers that expect it.
        """
        with mapped_errors():
            async with self._connections.writing(pool) as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def reading(self, *, anyhow: bool = False) -> AsyncGenerator[AsyncSession]:
        """A unit of work that only reads; with `anyhow` on a reserved connection if there is no other."""
        with mapped_errors():
            async with self._connections.reading(anyhow=anyhow) as connection:
                if self.is_sqlite:
                    await connection.execution_options(sqlite_begin="DEFERRED")
                async with AsyncSession(connection, expire_on_commit=False) as session:
                    yield session

    async def ping(self) -> None:
        """Prove within a bound that the database answers; raises StoreUnavailable."""

        async def look() -> None:
            async with self.reading() as session:
                await session.execute(text("SELECT 1"))

        with mapped_errors():
            async with asyncio.timeout(PING_SECONDS):
                await undisturbed(look())

    async def close(self) -> None:
        """Close every connection, once what goes on undisturbed has had a moment to end."""
        if going_on := [task for task in asyncio.all_tasks() if task.get_name() == UNDISTURBED]:
            await asyncio.wait(going_on, timeout=CLOSE_SECONDS)
        for engine in self._connections.engines:
            await engine.dispose()


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a unit of work that goes on to its end although who waits is cancelled.

    Half a conversation with the database would leave its connection unusable, and a cancelled
    commit usually happens all the same.
    """
    task = asyncio.create_task(work, name=UNDISTURBED)
    # Nobody may be left to hear of its failure.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


class mapped_errors:  # noqa: N801 - a context manager used as a word
    """Foreign database errors become ours; a plain class because it is entered for every query."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, IntegrityError):
            return
        if isinstance(error, PoolTimeoutError | OSError | TimeoutError):
            raise StoreUnavailable(type(error).__name__) from error
        if isinstance(error, DBAPIError):
            # Not chained: the whole text quotes what users wrote, which must not reach logs.
            raise (StoreUnavailable if _is_passing(error) else StoreRejected)(_reason(error)) from None
        if isinstance(error, SQLAlchemyError):
            raise StoreRejected(type(error).__name__) from error


def _reason(error: DBAPIError) -> str:
    """What went wrong, without the value that it went wrong with: class 22 quotes it."""
    cause = getattr(error.orig, "__cause__", None) or error.orig
    sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
    said = "" if sqlstate.startswith("22") else str(cause)
    return " ".join(filter(None, [type(cause).__name__, sqlstate, said]))


def _is_passing(error: DBAPIError) -> bool:
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    if sqlstate := getattr(error.orig, "sqlstate", None):
        return str(sqlstate).startswith(_PASSING_SQLSTATES)
    return any(word in str(error.orig).lower() for word in _PASSING_SQLITE)


def _postgres_engine(url: URL, pool_size: int, lease_seconds: float) -> AsyncEngine:
    # Two seconds at least: a busy machine is not a frozen process.
    half_lease = max(2000, int(lease_seconds * 500))
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "timeout": 5,
            "command_timeout": 10,
            "server_settings": {
                "application_name": "agent-gateway",
                # A frozen process must not hold row locks (R6).
                "idle_in_transaction_session_timeout": str(half_lease),
                # Longer than a frozen process can hold them, or many at once in one conversation.
                "lock_timeout": str(max(3000, half_lease)),
                "statement_timeout": "9000",
            },
        },
    )
    event.listen(engine.sync_engine, "handle_error", _is_unusable)
    return engine


def _is_unusable(context: ExceptionContext) -> None:
    """A connection in the middle of something else has to go, and not to the next who asks (asyncpg)."""
    if isinstance(getattr(context.original_exception, "__cause__", None), InternalClientError):
        context.is_disconnect = True


def _sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=10, hide_parameters=True
    )

    def connect(connection: Any, _record: object) -> None:
        # The driver's own idea of when a transaction begins is switched off; see `begin`.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: a transaction that reads first can not be upgraded
        # behind another writer's back.
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    def invalidate(connection: Any, _record: object, error: BaseException | None) -> None:
        # A cancelled write may leave rows of its RETURNING unread. Then to close the connection is not
        # enough: it would keep the write lock until that cursor is garbage.
        if error is not None:
            connection.rollback()

    def terminate(connection: Any) -> None:
        # Its own way would stop the thread of a connection while a task of its own closes it: a task that
        # then waits for an answer for ever, and a process that waits for that task at its end.
        if in_greenlet():
            connection.close()
        else:
            connection.terminate()

    engine.dialect.do_terminate = terminate  # type: ignore[method-assign]
    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", begin)
    event.listen(engine.sync_engine, "invalidate", invalidate)
    return engine
