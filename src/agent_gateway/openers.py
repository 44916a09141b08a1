"""Opens what the settings name: the database, the file store, the backend, the secret key.

An SQLite file is made, migrated and owned here, before anything else may touch it.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Final
from urllib.parse import quote

from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.protocol import Backend
from agent_gateway.conditions import Condition
from agent_gateway.errors import ConfigError, StoreUnavailable
from agent_gateway.limits import DEFAULTS, BackendLimits, DatabaseLimits
from agent_gateway.settings import Settings
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import migrate, schema_is_current
from agent_gateway.store.db.sqlite_file import (
    make_private,
    prove_writable,
    served_alone,
    sqlite_path,
    usable,
)
from agent_gateway.store.db.url import async_url
from agent_gateway.store.objects import Objects, keep_others_out, local_folder
from agent_gateway.store.runs.log import StoredRunLog
from agent_gateway.store.runs.removal import kept_seconds

RETRY_SECONDS: Final = 2.0
"""Pause between two looks at a database that cannot be used yet."""

logger = logging.getLogger(__name__)


def check_database(settings: Settings) -> Path | None:
    """The path of the SQLite file, or None for Postgres. Raises ConfigError for any other URL."""
    url = async_url(settings.resolved_database_url())
    return sqlite_path(url) if settings.embedded_database else None


def open_database(settings: Settings, limits: DatabaseLimits = DEFAULTS.database) -> Database:
    """The database of these settings; the caller closes it. Raises ConfigError."""
    check_database(settings)
    return Database(
        settings.resolved_database_url(),
        pool_size=settings.database_pool_size,
        lease_seconds=settings.lease_seconds,
        limits=limits,
    )


@contextmanager
def owned_database(settings: Settings) -> Generator[None]:
    """While entered, this is the only process that serves the SQLite file. Does nothing with Postgres.

    Raises ConfigError before anything is changed.
    """
    path = check_database(settings)
    if path is None:
        yield
        return
    make_data_dir(settings)
    with served_alone(path):
        yield


async def prepare(settings: Settings) -> None:
    """Make what a start needs: the folder of files, and with SQLite a database and a secret key.

    Raises ConfigError and StoreError. A failure leaves no incomplete database.
    """
    open_files(settings)
    if not settings.files_url:
        keep_others_out(_files_folder(settings))
    if settings.embedded_database:
        await migrate_database(settings)
        secret_key(settings, make=True)


async def migrate_database(settings: Settings) -> None:
    """Bring the schema up to date. Makes a missing SQLite file, which only its owner can read.

    Raises ConfigError and StoreError.
    """
    path = check_database(settings)
    make_data_dir(settings)
    database = open_database(settings)
    try:
        with usable(path) if path else nullcontext():
            await migrate(database)
    finally:
        await database.close()
    if path:
        make_private(path)
        await asyncio.to_thread(prove_writable, path)


def make_data_dir(settings: Settings) -> None:
    """Make the folder of the default database. Raises ConfigError."""
    folder = settings.data_dir.absolute()
    path = check_database(settings)
    if path is None or path.parent != folder.resolve():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"AGENT_GATEWAY_DATA_DIR: {folder} cannot be made: {error.strerror}") from None


def open_files(settings: Settings) -> Objects:
    """The file store of these settings. Raises ConfigError."""
    return Objects(settings.files_url, _files_folder(settings))


def _files_folder(settings: Settings) -> Path:
    return settings.data_dir / "files"


def files_folder(settings: Settings) -> Path | None:
    """The folder of the file store of these settings; None for a bucket."""
    return local_folder(settings.files_url, _files_folder(settings))


def secret_key_file(settings: Settings) -> Path:
    """Where the secret key is that a start has made."""
    return settings.data_dir / "secret-key"


def open_backend(
    settings: Settings, database: Database, owner: str, limits: BackendLimits = DEFAULTS.backend
) -> Backend:
    """The agent backend of these settings; the caller closes it. Raises ConfigError for an unusable model.

    The embedded one keeps its runs in this database, in the name of this owner.
    """
    if settings.backend_url:
        return HTTPBackend(
            settings.backend_url,
            token=settings.backend_token.get_secret_value(),
            reconnect_seconds=settings.backend_reconnect_seconds,
            fallback=settings.backend_schema,
            limits=limits,
        )
    # Imported here: the agent library takes a second to load and is not needed with BACKEND_URL.
    from agent_gateway.backend.embedded import EmbeddedBackend

    return EmbeddedBackend(settings.model, open_run_log(settings, database, owner))


def open_run_log(settings: Settings, database: Database, owner: str) -> StoredRunLog:
    """The log of the embedded agent's runs in this database, for a process with this id."""
    return StoredRunLog(database, owner, settings.lease_seconds, kept_seconds(settings.turn_timeout_seconds))


def for_backend(settings: Settings) -> Settings:
    """The settings of a process that serves the embedded agent: with SQLite it has a file of its own."""
    if not settings.embedded_database:
        return settings
    path = quote(str(settings.data_dir.absolute() / "backend.db"))
    return settings.model_copy(update={"database_url": f"sqlite:///{path}"})


async def prepare_backend(settings: Settings) -> None:
    """Make and migrate an SQLite file, or wait until Postgres is there and migrated.

    These are the settings `for_backend`. Raises ConfigError and StoreError.
    """
    if settings.embedded_database:
        await migrate_database(settings)
        return
    unusable = Condition(logger, "the database cannot be used")
    database = open_database(settings)
    try:
        while True:
            try:
                if await schema_is_current(database):
                    return
                unusable.met("its schema is behind: run `agent-gateway migrate`")
            except StoreUnavailable as error:
                unusable.met(error)
            await asyncio.sleep(RETRY_SECONDS)
    finally:
        await database.close()


@asynccontextmanager
async def using(database: Database) -> AsyncGenerator[None]:
    """While entered, this database is held by this process; then it is closed."""
    try:
        await database.hold()
        # From here on its clock is known.
        await database.now()
        yield
    finally:
        await database.close()


def check_model(settings: Settings) -> None:
    """Raise ConfigError when the model of the settings cannot be used."""
    from agent_gateway.backend.embedded import check_model

    check_model(settings.model)


def secret_key(settings: Settings, *, make: bool = False) -> bytes:
    """The secret key of the settings, or else of DATA_DIR. With `make` a missing one is written there.

    Raises ConfigError.
    """
    if key := settings.given_secret_key():
        return key
    path = secret_key_file(settings)
    try:
        if make and not path.exists():
            _make_secret(path)
        if key := path.read_bytes().strip():
            return key
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path.absolute()}: set AGENT_GATEWAY_SECRET_KEY or AGENT_GATEWAY_DATA_DIR "
            "as for the gateway"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path.absolute()} cannot be used: {error.strerror}") from None
    raise ConfigError(f"{path.absolute()} is empty: delete it, and a new key is made")


def _make_secret(path: Path) -> None:
    """Write a new key. If the process dies, the file is complete or does not exist."""
    new = path.with_suffix(".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.touch(mode=0o600)
        new.write_text(secrets.token_urlsafe(32))
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
