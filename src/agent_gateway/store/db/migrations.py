"""The schema's migrations. Alembic is imported when it is needed: reading it takes a while."""

import asyncio
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from agent_gateway.domain.ids import new_id
from agent_gateway.errors import StoreUnavailable
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.errors import is_held_up, mapped_errors
from agent_gateway.store.db.postgres import NO_LIMITS, Postgres
from agent_gateway.store.db.sqlite_file import PRIVATE, sqlite_path
from agent_gateway.store.db.url import postgres_address

if TYPE_CHECKING:
    from alembic.config import Config

LOCK: Final = 7_261_830_419
"""Key of the advisory lock: any number, but the same in every release."""

LOCK_MILLISECONDS: Final = 3000
"""How long a migration waits for a table that is read for long, as by a backup. Statements of the running
processes wait behind it, so this is less than their own limit."""

WAIT_SECONDS: Final = 60
"""How long a process waits for another one that migrates the same SQLite file."""

logger = logging.getLogger(__name__)

_making: Final = threading.Lock()


async def migrate(database: Database, lock_milliseconds: int = LOCK_MILLISECONDS) -> None:
    """Bring the schema to what this code expects; any number of processes may call it at once.

    On Postgres the migration fails after it has waited `lock_milliseconds` for a table.
    A newer schema stays as it is. Raises StoreUnavailable or StoreRejected; nothing is changed
    then, and no new SQLite file is left behind.
    """
    with mapped_errors:
        if database.is_sqlite and not await asyncio.to_thread(sqlite_path(database.url).exists):
            await _make_file(sqlite_path(database.url), database.url)
            return
        for may_fail in (True, True, False):
            try:
                async with exclusive(database.url) as connection:
                    await connection.run_sync(_upgrade, lock_milliseconds)
                return
            except DBAPIError as error:
                # Turns are written while the tables are locked one after the other.
                if not (may_fail and is_held_up(error)):
                    raise
                logger.info("the migration met a transaction of a running process: it begins again")


async def schema_is_current(database: Database) -> bool:
    """False when the schema is missing or older than this code expects; newer is fine (R17)."""
    async with database.reading() as session:
        connection = await session.connection()
        return await connection.run_sync(_is_current)


@asynccontextmanager
async def exclusive(url: URL) -> AsyncGenerator[AsyncConnection]:
    """One transaction in which nobody else migrates, committed when the block ends.

    On a connection of its own: the time limits of the others would break waiting and migrating.
    """
    if url.get_backend_name() == "sqlite":
        await asyncio.to_thread(_switch_to_wal, url.database or "")
        engine = _sqlite_engine(url)
    else:
        engine = Postgres(postgres_address(url), NO_LIMITS, None).engine(poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection
    finally:
        await engine.dispose()


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": WAIT_SECONDS, "isolation_level": None},
    )

    def connect(connection: Any, _record: object) -> None:
        # Batch mode drops and recreates tables; this setting cannot be changed inside the transaction.
        connection.execute("PRAGMA foreign_keys = OFF")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


def _switch_to_wal(path: str) -> None:
    """Happens once to a file. Of processes that do it at once SQLite lets some wait, and fails some.

    In a thread, on a connection of its own: a failed statement may be garbage of any thread, and who frees
    it waits for whatever its connection does then.
    """
    give_up = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.DatabaseError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                # Other errors will surface on the migration's own connection.
                return
        time.sleep(0.01)


async def _make_file(path: Path, url: URL) -> None:
    """A new SQLite file, with its schema or not at all: it is made beside and then gets its name."""
    # Alembic can do one migration at a time in a process; in another one it may make the file, too.
    while not _making.acquire(blocking=False):  # noqa: ASYNC110 - who holds it may be in another loop
        await asyncio.sleep(0.01)
    new = path.with_name(f"{path.name}-new-{new_id()}")
    try:
        if await asyncio.to_thread(path.exists):
            return
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE))
        async with exclusive(url.set(database=str(new))) as connection:
            await connection.run_sync(_upgrade)
        await asyncio.to_thread(_name, new, path)
    except OSError as error:
        raise StoreUnavailable(error.strerror or type(error).__name__) from None
    finally:
        _making.release()
        for ending in ("", "-wal", "-shm", "-journal"):
            new.with_name(new.name + ending).unlink(missing_ok=True)


def _name(new: Path, path: Path) -> None:
    """Give a new file its name, unless another process was faster."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS) or path.exists():
            raise
        # A file system without hard links.
        new.rename(path)
    logger.info("a new database was made: %s", path)


def _upgrade(connection: Connection, lock_milliseconds: int = LOCK_MILLISECONDS) -> None:
    from alembic import command

    if not _is_current(connection):
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = {lock_milliseconds}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_current(connection: Connection) -> bool:
    from alembic.migration import MigrationContext

    head, older = _revisions()
    stamped = MigrationContext.configure(connection).get_current_heads()
    # A revision that this code does not know is newer than this code.
    return bool(stamped) and all(revision == head or revision not in older for revision in stamped)


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision this code knows, and those before it."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    return head, frozenset(script.revision for script in scripts.walk_revisions()) - {head}


def known_revisions() -> frozenset[str]:
    """All revisions of the schema that this code can bring up to date."""
    head, older = _revisions()
    return older | ({head} if head else set())


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    return config


def _folder() -> Path:
    """Where the migrations are: inside the package when it was installed, else next to `src`."""
    package = Path(__file__).parents[2]
    installed = package / "_alembic"
    return installed if installed.exists() else package.parents[1] / "alembic"
