"""What `agent-gateway backup` and `restore` do: one archive of an SQLite database, its files and secret key.

The database is copied first. Files never change once they are written, so those that it knows are there when
they are copied after it, except for those that were deleted in between.
"""

import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Final

import typer

from agent_gateway.cli.environment import read_settings
from agent_gateway.cli.output import PRIVATE, private_file
from agent_gateway.errors import ConfigError
from agent_gateway.openers import check_database, files_folder, make_data_dir, secret_key_file
from agent_gateway.settings import Settings
from agent_gateway.store.backup import check_revision, copy_database, file_keys, revision_of

FORMAT: Final = 1
ABOUT: Final = "about.json"
"""The first entry: what made the archive."""
DATABASE: Final = "database"
KEY: Final = "secret-key"
END: Final = "end.json"
"""The last entry: an archive without it is not complete."""
FILE: Final = re.compile(r"files/(\d{4}/\d\d/\d\d/[0-9a-f-]{36})")
POSTGRES: Final = (
    "the database is Postgres: use pg_dump and pg_restore, and copy the file store; "
    "see docs/operations.md, Back up"
)


def backup(file: Path) -> None:
    """Write the SQLite database, its files and the secret key into one archive, also while it is served."""
    settings = read_settings()
    database = _database(settings)
    if not database.exists():
        raise ConfigError(f"there is no database {database}: run this with the settings of the gateway")
    folder, key_file = files_folder(settings), secret_key_file(settings)
    has_key = not settings.given_secret_key() and key_file.exists()
    with (
        private_file(file) as output,
        tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent) as beside,
        tarfile.open(fileobj=output, mode="w") as archive,
    ):
        copy = Path(beside) / DATABASE
        copy_database(database, copy)
        about = {"format": FORMAT, "schema": revision_of(copy), "created_at": datetime.now(UTC).isoformat()}
        _add_json(archive, ABOUT, about)
        _add(archive, DATABASE, copy)
        if has_key:
            _add(archive, KEY, key_file)
        keys = file_keys(copy) if folder else []
        added = sum(_add(archive, f"files/{key}", folder / key) for key in keys) if folder else 0
        _add_json(archive, END, {"files": added})
    typer.echo(f"{file}: the database, {added} files{' and the secret key' if has_key else ''}")
    if added < len(keys):
        typer.echo(f"note: {len(keys) - added} files were deleted meanwhile", err=True)
    if folder is None:
        typer.echo("note: files are in a bucket (AGENT_GATEWAY_FILES_URL), and not in this backup", err=True)
    if not has_key:
        typer.echo("note: keep AGENT_GATEWAY_SECRET_KEY with this backup: keys work only with it", err=True)


def restore(file: Path) -> None:
    """Make the database, its files and the secret key from a backup. DATA_DIR must be empty."""
    settings = read_settings()
    database, folder = _database(settings), files_folder(settings)
    # What a database left beside its file would be taken for a part of the restored one.
    left = [database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal")]
    for place in (settings.data_dir.absolute(), database, *left, folder):
        if place and (place.is_file() or _contents(place)):
            raise ConfigError(
                f"{place} is not empty: a backup is restored into an empty AGENT_GATEWAY_DATA_DIR"
            )
    with _opened(file) as archive, _nothing_is_left(settings, database, folder):
        files = _extract(archive, settings, database, folder)
    typer.echo(f"{file}: restored, the database and {files} files; start the gateway now")


def _database(settings: Settings) -> Path:
    path = check_database(settings)
    if path is None:
        raise ConfigError(POSTGRES)
    return path


def _add(archive: tarfile.TarFile, name: str, path: Path) -> bool:
    """Add this file; False when it does not exist."""
    try:
        with path.open("rb") as source:
            archive.addfile(_entry(name, os.fstat(source.fileno()).st_size), source)
    except FileNotFoundError:
        return False
    return True


def _add_json(archive: tarfile.TarFile, name: str, value: object) -> None:
    data = json.dumps(value).encode()
    archive.addfile(_entry(name, len(data)), BytesIO(data))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, PRIVATE, int(datetime.now(UTC).timestamp())
    return entry


@contextmanager
def _opened(file: Path) -> Generator[tarfile.TarFile]:
    try:
        with tarfile.open(file) as archive:
            yield archive
    except (tarfile.TarError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(f"{file} is no complete backup of a gateway: {type(error).__name__}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be restored: {error.strerror or type(error).__name__}") from None


@contextmanager
def _nothing_is_left(settings: Settings, database: Path, folder: Path | None) -> Generator[None]:
    """What a restore that failed has made is deleted: all of it was empty before."""
    try:
        make_data_dir(settings)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in (settings.data_dir, folder):
            for path in _contents(place) if place else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        database.unlink(missing_ok=True)
        _unfinished(database).unlink(missing_ok=True)
        raise


def _contents(folder: Path) -> list[Path]:
    """What is in a folder, if it exists. The root of a file system is empty with its `lost+found`."""
    return [path for path in folder.iterdir() if path.name != "lost+found"] if folder.is_dir() else []


def _unfinished(database: Path) -> Path:
    return database.with_name(f".{database.name}.restoring")


def _extract(archive: tarfile.TarFile, settings: Settings, database: Path, folder: Path | None) -> int:
    """Write all entries to their places; returns how many files there were.

    The database gets its name last: only then can a gateway start.
    """
    entries = iter(archive)
    _check_format(json.load(_content(archive, next(entries, None), ABOUT)))
    files = 0
    for entry in entries:
        content = _content(archive, entry)
        if entry.name == END:
            complete: bool = json.load(content)["files"] == files
            break
        if entry.name == DATABASE:
            _write(content, _unfinished(database))
        elif entry.name == KEY:
            _write(content, secret_key_file(settings))
        elif found := FILE.fullmatch(entry.name):
            if folder is None:
                raise ConfigError("the backup has files, and AGENT_GATEWAY_FILES_URL names no folder")
            _write(content, folder / found[1])
            files += 1
    else:
        complete = False
    if not complete:
        raise tarfile.ReadError
    check_revision(revision_of(_unfinished(database)))
    _unfinished(database).rename(database)
    return files


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo | None, name: str = "") -> IO[bytes]:
    """What an entry holds. Raises ReadError unless it is a plain file, and has that name if one is given."""
    content = archive.extractfile(entry) if entry else None
    if content is None or entry is None or name not in ("", entry.name):
        raise tarfile.ReadError
    return content


def _check_format(about: Mapping[str, object]) -> None:
    if about["format"] != FORMAT:
        raise ConfigError(f"the backup is of a newer release: its format is {about['format']}")
    check_revision(str(about["schema"]))


def _write(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
