"""Connections to Postgres: their host, their limits, with or without a pooler, and when to drop them."""

import logging
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from agent_gateway.errors import StoreUnavailable
from agent_gateway.store.db.errors import is_foreign_session, is_useless
from agent_gateway.store.db.prepared import PreparedForPostgres
from agent_gateway.store.db.url import NAME, Host, PostgresAddress

COMMAND_SECONDS: Final = 10.0
"""How long a statement may go without an answer: longer than the server lets it run."""
PROBE_SECONDS: Final = 3.0
"""How long an idle connection may take to answer before it is used again."""

_DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_OPENED: Final = "opened"
"""Under this name the pool's note on a connection says when it was made (monotonic seconds)."""

logger = logging.getLogger(__name__)


def session_limits(lease_seconds: float) -> dict[str, str]:
    """A session's name and time limits, so that a frozen process holds no row locks (R6)."""
    # Two seconds at least: a busy machine is not a frozen process.
    half_lease = max(2000, int(lease_seconds * 500))
    return {
        "application_name": "agent-gateway",
        "idle_in_transaction_session_timeout": str(half_lease),
        # Longer than a frozen process keeps its locks, or than requests of one conversation queue for them.
        "lock_timeout": str(max(3000, half_lease)),
        "statement_timeout": "9000",
    }


NO_LIMITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(session_limits(1), "0"),
    "application_name": "agent-gateway migrate",
}
"""For a migration, which may take long."""


class BehindPooler(Exception):
    """A connection pooler stands before the database."""


class PooledConnection(asyncpg.Connection):
    """A connection through a pooler, which gives every transaction another session of the server.

    What a session would keep has to come with each transaction, and a statement cannot be prepared
    under a name. Nothing here costs another round trip.
    """

    session = ""
    """SQL that is appended to BEGIN and applies our settings."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Like the driver's; a transaction that begins gets its settings in the same message."""
        if query.startswith("BEGIN"):
            query += self.session
        return await super().execute(query, *args, timeout=timeout)

    async def set_type_codec(self, *args: Any, **kwargs: Any) -> None:
        """Like the driver's, in one transaction: all its queries must reach the same session."""
        async with self.transaction():
            await super().set_type_codec(*args, **kwargs)


class Postgres:
    """Makes engines for one address, which share what any of their connections found out."""

    def __init__(
        self,
        address: PostgresAddress,
        settings: Mapping[str, str],
        command_seconds: float | None,
        *,
        trusted_seconds: float = 0.0,
    ) -> None:
        """`settings` are those of every session; no answer within `command_seconds` is a lost one.

        A connection is probed before it is used, unless it was used within the last `trusted_seconds`.
        """
        self._trusted_seconds = trusted_seconds
        self._address = address
        self._command_seconds = command_seconds
        self._settings = {**settings, **address.settings}
        self._hosts: list[Host | None] = [*address.hosts] or [None]
        self._distrusted = 0.0
        self._used_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        """When each connection of the driver was returned (monotonic seconds)."""
        self.pooled = address.pooled
        """A pooler stands before the database: the URL says so, or a connection showed it."""

    def pooled_engine(self, size: int) -> AsyncEngine:
        """An engine that keeps so many connections."""
        return self.engine(pool_size=size, max_overflow=0, pool_timeout=10, pool_pre_ping=True)

    def engine(self, **pool: Any) -> AsyncEngine:
        """An engine with a pool of this kind; dispose it."""
        engine = create_async_engine("postgresql+asyncpg://", hide_parameters=True, **pool)
        engine.dialect.do_ping = self._is_alive  # type: ignore[method-assign]
        for name, listener in (
            ("do_connect", self._connect),
            ("connect", _note_age),
            ("checkout", self._refuse_old),
            ("checkin", self._note_use),
            ("handle_error", self._judge),
        ):
            event.listen(engine.sync_engine, name, listener)
        return engine

    def distrust(self) -> None:
        """Drop all connections that are open now: each when it is next requested or returned."""
        self._distrusted = time.monotonic()

    def _refuse_old(self, _connection: Any, entry: ConnectionPoolEntry, _fairy: object) -> None:
        if entry.info[_OPENED] <= self._distrusted:
            raise DisconnectionError

    def _note_use(self, connection: Any, _entry: object) -> None:
        # There is none when it was dropped.
        if connection is not None:
            self._used_at[connection.driver_connection] = time.monotonic()

    def _is_alive(self, connection: Any) -> bool:
        """Whether an idle connection can be used again. Otherwise another one is made."""
        driver = connection.driver_connection
        if driver.is_closed():
            return False
        if time.monotonic() - self._used_at.get(driver, 0.0) < self._trusted_seconds:
            # If it proves dead after all, R14 decides.
            return True
        return _answers(connection)

    async def fetch(
        self, connection: AsyncConnection, statement: PreparedForPostgres, values: Mapping[str, Any]
    ) -> list[Any]:
        """Execute a statement by the driver itself, in one round trip. Raises the driver's errors."""
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        if driver.is_in_transaction():
            # The statement would join it, and nobody would commit.
            self.distrust()
            await connection.invalidate()
            raise StoreUnavailable("a connection was left in a transaction")
        try:
            # Not isinstance, which is true for any connection of this driver.
            if type(driver) is PooledConnection:
                # Only a transaction gets our settings there.
                async with driver.transaction():
                    return await statement.fetch(driver, values)
            return await statement.fetch(driver, values)
        except BaseException as error:
            if self._is_lost(error) or not isinstance(error, Exception):
                await connection.invalidate()
            raise

    def _judge(self, context: ExceptionContext) -> None:
        """Drop a useless connection, and with it all others: they lead to the same server."""
        if context.connection is not None and self._is_lost(context.original_exception):
            context.is_disconnect = True

    def _is_lost(self, error: BaseException) -> bool:
        """Whether the connection with this error is useless; then no other that is open now is trusted."""
        if not is_useless(error):
            return False
        self.distrust()
        if is_foreign_session(error) and not self.pooled:
            self._notice_pooler()
        return True

    def _notice_pooler(self) -> None:
        self.pooled = True
        logger.info("a connection pooler stands before the database: settings come with every transaction")

    def _connect(self, dialect: Any, _entry: object, _cargs: object, _cparams: object) -> Any:
        """A new connection, as SQLAlchemy wants it."""
        if not self.pooled:
            try:
                return dialect.connect(async_creator_fn=self._open_direct)
            except BehindPooler:
                self._notice_pooler()
        return dialect.connect(async_creator_fn=self._open_pooled, prepared_statement_cache_size=0)

    async def _open_direct(self) -> Any:
        options = {"options": self._address.startup_options} if self._address.startup_options else {}
        connection = await self._open(server_settings={**self._settings, **options})
        try:
            # Behind a pooler, the process number that the driver knows is not the real one.
            same = f"SELECT 1 WHERE pg_backend_pid() = {connection.get_server_pid()}"
            if await connection.execute(same) == "SELECT 1":
                return connection
        except BaseException:
            # A cancellation here would leave it open.
            connection.terminate()
            raise
        connection.terminate()
        raise BehindPooler

    async def _open_pooled(self) -> Any:
        settings = dict(self._settings)
        startup = {"application_name": settings.pop("application_name")}
        if self._address.startup_options:
            startup["options"] = self._address.startup_options
        connection = await self._open(
            server_settings=startup, statement_cache_size=0, connection_class=PooledConnection
        )
        # Not SET: it takes a list (a search_path) for one name.
        each = (f"set_config({_quoted(name)}, {_quoted(value)}, true)" for name, value in settings.items())
        connection.session = f"SELECT {', '.join(each)};" if settings else ""
        return connection

    async def _open(self, **arguments: Any) -> Any:
        """Connect to the first host that works, beginning with the one that worked last."""
        failures: list[str] = []
        reason: Exception | None = None
        for host in list(self._hosts):
            try:
                found = await asyncpg.connect(
                    **self._address.arguments(host), command_timeout=self._command_seconds, **arguments
                )
            except (OSError, TimeoutError, ValueError, *_DRIVER_ERRORS) as error:
                if _refuses_settings(error):
                    raise BehindPooler from None
                failures.append(f"{self._place(host)}: {_why(error)}")
                reason = error
            else:
                self._hosts.remove(host)
                self._hosts.insert(0, host)
                return found
        raise StoreUnavailable("no connection to " + "; ".join(failures)) from reason

    def _place(self, host: Host | None) -> str:
        name = self._address.login.get("database", "")
        return f"{host or 'a local Postgres'}{name and f', database {name}'}"


def _refuses_settings(error: Exception) -> bool:
    """True for the errors of poolers about a parameter that they cannot keep for a client."""
    return isinstance(error, asyncpg.PostgresError) and (
        "startup parameter" in str(error) or "command-line options" in str(error)
    )


_HINTS: Final[Mapping[type[BaseException], str]] = {
    ConnectionRefusedError: f"nothing listens there: is Postgres running, and is {NAME} right?",
    FileNotFoundError: f"there is no such socket: is Postgres running, and is {NAME} right?",
    TimeoutError: f"no answer in time: look at the network, a firewall, and the host in {NAME}",
    socket.gaierror: f"this name is not known: look at the host in {NAME}",
    ssl.SSLCertVerificationError: "its certificate is not trusted: look at sslmode and sslrootcert",
    ssl.SSLError: "TLS failed: look at sslmode",
    asyncpg.InvalidAuthorizationSpecificationError: f"look at user and password in {NAME}",
    asyncpg.InvalidCatalogNameError: "create it, or correct the name",
    asyncpg.TooManyConnectionsError: "pg_stat_activity says who has them; raise the limit or use fewer",
    asyncpg.TargetServerAttributeNotMatched: "it can only be read",
}
"""What to look at, by the type of the error; the first match counts."""


def _why(error: BaseException) -> str:
    hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), "")
    # One line, whatever the server said; none of these texts holds a password.
    said = " ".join(str(error).split()) if isinstance(error, asyncpg.PostgresError) else type(error).__name__
    return f"{said} ({hint})" if hint else said


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _note_age(_connection: Any, entry: ConnectionPoolEntry) -> None:
    entry.info[_OPENED] = time.monotonic()


def _answers(connection: Any) -> bool:
    """One round trip on an idle connection; False after any error."""

    async def ask(driver: asyncpg.Connection) -> None:
        await driver.execute("SELECT 1", timeout=PROBE_SECONDS)

    try:
        connection.run_async(ask)
    except (OSError, TimeoutError, *_DRIVER_ERRORS):
        return False
    return True
