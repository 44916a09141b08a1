"""What `agent-gateway check` does: tries all that the settings name, and changes nothing.

A file that it writes into the file store is deleted again.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from agent_gateway import tracing
from agent_gateway.cli.environment import read_settings
from agent_gateway.cli.findings import Finding, tell
from agent_gateway.cli.values import without_password
from agent_gateway.domain.ids import new_id
from agent_gateway.errors import ConfigError, ObjectError, StoreError
from agent_gateway.openers import check_database, check_model, open_database, open_files, secret_key
from agent_gateway.settings import Settings
from agent_gateway.startup_checks import app_model, load_config, try_tools
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import schema_is_current
from agent_gateway.store.db.rights import prove_rights
from agent_gateway.store.db.sqlite_file import prove_writable
from agent_gateway.store.db.url import async_url, described
from agent_gateway.store.secret_marks import Secrets

T = TypeVar("T")

SECONDS: Final = 30.0
"""How long one point may take."""
PROBE: Final = b"written and deleted by agent-gateway check"

MIGRATE: Final = "it is older than this release expects: run `agent-gateway migrate`"


def check() -> None:
    """Say of each point whether it is good. Exits with FAULTS when one is not."""
    with _no_logs():
        tell(_findings())


@contextmanager
def _no_logs() -> Generator[None]:
    """What libraries and parts of the gateway log would be a second line about the same fault."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _findings() -> Iterator[Finding]:
    try:
        settings = read_settings()
        place = described(async_url(settings.resolved_database_url()))
        path = check_database(settings)
    except ConfigError as error:
        yield Finding("settings", False, f"{error}; nothing else was looked at")
        return
    yield Finding("settings", True, "all variables are known and well formed")
    yield _tried("app file", lambda: _app_file(settings))
    yield _tried("secret key", lambda: _secret_key(settings))
    if path is not None and not path.exists():
        yield _tried("database", lambda: _can_be_made(path), place)
    else:
        yield from _database(settings, place, path)
    store = without_password(settings.files_url) or str((settings.data_dir / "files").absolute())
    yield _tried("file store", lambda: _files(settings), store)
    yield from _agent(settings)
    yield _tried("traces", _traces)


def _tried(point: str, work: Callable[[], str], place: str = "") -> Finding:
    """What came of it, beginning with the place that was tried."""
    try:
        ok, said = True, work()
    except (ConfigError, StoreError, ObjectError) as error:
        # One line for each point: an app file has a list of mistakes.
        ok, said = False, str(error).replace("\n  - ", " | ")
    except TimeoutError:
        ok, said = False, f"no answer within {SECONDS:g} seconds"
    return Finding(point, ok, f"{place}: {said}" if place else said)


def _app_file(settings: Settings) -> str:
    config = load_config(settings)
    source = str(settings.app_file) if settings.app_file else "none, the built-in app is used"
    return f"{source} (mode {config.mode})"


def _secret_key(settings: Settings) -> str:
    if settings.given_secret_key():
        return "set"
    if not (settings.data_dir / "secret-key").exists():
        return "none yet; the first start makes one in AGENT_GATEWAY_DATA_DIR"
    secret_key(settings)
    return "in AGENT_GATEWAY_DATA_DIR"


def _can_be_made(path: Path) -> str:
    """What a first start does about a missing file or folder. Raises ConfigError when it could not."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ConfigError(f"{path} is not there, and {folder} cannot be written: give its owner the rights")
    return "not there yet; the first start makes it"


def _database(settings: Settings, place: str, path: Path | None) -> Iterator[Finding]:
    async def reach(database: Database) -> str:
        if path is not None:
            await asyncio.to_thread(prove_writable, path)
        await database.ping()
        return "reachable and writable"

    async def schema(database: Database) -> str:
        if not await schema_is_current(database):
            if path is None:
                raise ConfigError(MIGRATE)
            return "older than this release expects; the next start migrates it"
        await prove_rights(database)
        if path is None and await Secrets(database, new_id(), secret_key(settings)).differ():
            raise ConfigError(
                "current, but other processes work on this database with another AGENT_GATEWAY_SECRET_KEY: "
                "set theirs"
            )
        return "current; all tables can be written"

    found = _tried("database", lambda: _with_database(settings, reach), place)
    yield found
    if found.ok:
        yield _tried("schema", lambda: _with_database(settings, schema))


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[str]]) -> str:
    async def run() -> str:
        database = open_database(settings)
        try:
            async with asyncio.timeout(SECONDS):
                return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def _files(settings: Settings) -> str:
    folder = settings.data_dir / "files"
    if not settings.files_url and not folder.exists():
        return _can_be_made(folder)

    async def run() -> None:
        files = open_files(settings)
        key = f"check-{new_id()}"
        async with asyncio.timeout(SECONDS):
            try:
                await files.put_bytes(key, PROBE)
                read = b"".join([chunk async for chunk in await files.get(key, 0, len(PROBE))])
            finally:
                await files.delete([key])
        if read != PROBE:
            raise ConfigError("a file was not read as it was written: something changes what is stored")

    try:
        asyncio.run(run())
    except ObjectError as error:
        raise ConfigError(f"a file cannot be written, read and deleted: {error}") from None
    return "a file was written, read and deleted"


def _store(settings: Settings) -> str:
    return without_password(settings.files_url) or str((settings.data_dir / "files").absolute())


def _traces() -> str:
    if not tracing.require():
        return "not asked for"
    from agent_gateway.spans import reach_collector

    if why := reach_collector():
        raise ConfigError(f"their collector does not take them: {why}")
    return "their collector takes them"


def _agent(settings: Settings) -> Iterator[Finding]:
    if settings.backend_url:
        from agent_gateway.cli.backend_check import look_at

        place = without_password(settings.backend_url)
        yield _tried("backend", lambda: asyncio.run(look_at(settings)), place)
        yield Finding("model", True, "not used: the agent runs behind AGENT_GATEWAY_BACKEND_URL")
        return
    yield Finding("backend", True, "none, the built-in agent is used")
    yield _tried("model", lambda: _model(settings))
    found = _tried("tools", lambda: asyncio.run(_tools(settings)))
    if found.said:
        yield found


async def _tools(settings: Settings) -> str:
    """The MCP servers of the app in AGENT_GATEWAY_APP_FILE; empty without any."""
    try:
        config = load_config(settings)
    except ConfigError:
        return ""  # its own point has said so
    async with asyncio.timeout(SECONDS):
        return await try_tools(settings, config)


def _model(settings: Settings) -> str:
    check_model(settings)
    try:
        own = app_model(settings, load_config(settings))
    except ConfigError:
        own = ""  # the point of the app file has said so
    if not (model := own or settings.model):
        return "none, the demo agent answers"
    return f"{model}: can be built; whether its provider knows it and takes the key only a turn tells"
