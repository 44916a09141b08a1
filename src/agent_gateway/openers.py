"""Opens what the settings name: the database, the file store, the backend, the secret key.

An SQLite file is made, migrated and owned here, before anything else may touch it.
"""

import asyncio
import secrets
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.protocol import Backend
from agent_gateway.errors import ConfigError
from agent_gateway.limits import DEFAULTS, BackendLimits, DatabaseLimits
from agent_gateway.settings import Settings
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import migrate
from agent_gateway.store.db.sqlite_file import (
    make_private,
    prove_writable,
    served_alone,
    sqlite_path,
    usable,
)
from agent_gateway.store.db.url import async_url
from agent_gateway.store.objects import Objects, keep_others_out, local_folder


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
    if settings.database_url:
        return
    folder = settings.data_dir.absolute()
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


def open_backend(settings: Settings, limits: BackendLimits = DEFAULTS.backend) -> Backend:
    """The agent backend of these settings; the caller closes it. Raises ConfigError for an unusable model."""
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

    return EmbeddedBackend(settings.model)


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
