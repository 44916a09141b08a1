"""The settings of a command, and the database that they name."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TypeVar

from agent_gateway import logs
from agent_gateway.errors import ConfigError
from agent_gateway.openers import check_database, open_database
from agent_gateway.settings import Settings
from agent_gateway.store.apps import AppStore, ListedApp
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import schema_is_current
from agent_gateway.store.db.sqlite_file import usable
from agent_gateway.store.objects import OTHERS

T = TypeVar("T")


def read_settings(host: str | None = None, port: int | None = None) -> Settings:
    """The settings of the environment, with the options of the command line in their place.

    From now on this process makes no file that other users can read: it holds what users sent. Who else is in
    its group is up to the umask it was started with.
    """
    os.umask(os.umask(OTHERS) | OTHERS)
    given = {"host": host, "port": port}
    settings = Settings.read(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings.log_format, settings.log_level)
    return settings


def with_database(work: Callable[[Database, Settings], Awaitable[T]]) -> T:
    """Run an action on the database of the settings. Raises ConfigError when its schema is not current."""
    settings = read_settings()

    async def run() -> T:
        database = open_database(settings)
        try:
            if not await schema_is_current(database):
                raise ConfigError("the database schema is behind: run `agent-gateway migrate`")
            return await work(database, settings)
        finally:
            await database.close()

    path = check_database(settings)
    if path is not None and not path.exists():
        raise ConfigError(
            f"there is no database {path}: run this in the gateway's folder and with its settings, "
            "once it was started"
        )
    with usable(path) if path else nullcontext():
        return asyncio.run(run())


async def app_named(database: Database, slug: str) -> ListedApp:
    """The app of this slug; ConfigError when there is none."""
    found = await AppStore(database).find_by_slug(slug)
    if found is None:
        raise ConfigError(f"there is no app {slug!r}: see `agent-gateway app list`")
    return found
