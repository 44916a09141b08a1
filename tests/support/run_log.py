"""Logs of the embedded agent's runs, in real databases."""

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from agent_gateway.domain.ids import new_id
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import migrate
from agent_gateway.store.runs.log import StoredRunLog
from tests.support.databases import SQLITE_FILE, complete, sqlite_url

KEEP_SECONDS = 3600.0


@asynccontextmanager
async def open_log(
    url: str = "", *, lease_seconds: float = 8.0, owner: str = "", keep_seconds: float = KEEP_SECONDS
) -> AsyncGenerator[StoredRunLog]:
    """The log of one process in the database with this URL; without one in a new SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        if not url:
            url = await asyncio.to_thread(new_file, Path(folder))
        database = Database(url, lease_seconds=lease_seconds)
        try:
            await database.now()
            yield StoredRunLog(database, owner or new_id(), lease_seconds, keep_seconds)
        finally:
            await database.close()


def new_file(folder: Path) -> str:
    """The URL of a new SQLite file in this folder, with the current schema."""
    shutil.copy(_template(), folder)
    return sqlite_url(folder)


@cache
def _template() -> Path:
    """A migrated file: a copy is faster than migrating."""
    folder = Path(tempfile.mkdtemp(prefix="run-log-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    async def make() -> None:
        database = Database(sqlite_url(folder))
        try:
            await migrate(database)
        finally:
            await database.close()

    complete(make())
    return folder / SQLITE_FILE
