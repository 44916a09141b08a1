"""The file of an SQLite database: whose it is, and who may read it."""

import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from agent_gateway.errors import ConfigError, StoreError

PRIVATE: Final = 0o600
WAIT_SECONDS: Final = 5.0
"""How long a command that writes may hold the database up."""

ROOM_BYTES: Final = 1024 * 1024
"""A disk with less room is full. A large message may need more: then only that one fails."""
REWRITE_SECONDS: Final = 60.0
"""How long a rewrite of the file waits for those who use it."""

logger = logging.getLogger(__name__)


def sqlite_path(url: URL) -> Path:
    """Where the database of an SQLite URL is, the same for every name of one file.

    Raises ConfigError for a database in memory and for SQLite's own `file:` names.
    """
    name = url.database or ""
    if not name or name == ":memory:" or name.startswith("file:"):
        raise ConfigError(
            "AGENT_GATEWAY_DATABASE_URL names no file: an SQLite database is one, as in sqlite:////data/x.db"
        )
    if url.query:
        raise ConfigError("AGENT_GATEWAY_DATABASE_URL: for SQLite nothing follows a ? (one in a name is %3F)")
    return Path(name).resolve()


@contextmanager
def served_alone(path: Path) -> Generator[None]:
    """Be the one process that serves this file, until the block is left or the process dies.

    The lock is on a file beside it: to close the database's own would give up the locks that SQLite holds on
    it. Raises ConfigError when another process serves it, or when the folder cannot be used.
    """
    with usable(path):
        file = os.open(path.with_name(f"{path.name}-lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"the database {path} is served by another process ({_holder(file)}): an SQLite file "
                    "belongs to one process at a time"
                ) from None
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(file)
            raise
    try:
        yield
    finally:
        os.close(file)


def make_private(path: Path) -> None:
    """Let nobody else read the database. What SQLite writes beside it gets the mode of the file itself."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        file = path.with_name(name)
        try:
            if file.stat().st_mode & 0o777 != PRIVATE:
                file.chmod(PRIVATE)
        except FileNotFoundError:
            pass
        except OSError as error:
            # Somebody else's file, or a file system without modes: an operator has chosen it.
            logger.warning("others may read %s: its mode cannot be set (%s)", file, error.strerror)


def prove_writable(path: Path) -> None:
    """Write to the database without changing it; ConfigError when it is damaged, read-only or has no room."""
    try:
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise ConfigError(f"the database {path} cannot be used: {_reason(path, error)}") from None


def has_room(path: Path) -> bool:
    """Whether the disk of the database has room for another transaction; True where that cannot be told."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return True
    # What is reserved for root is room for root.
    blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    return blocks * disk.f_frsize >= ROOM_BYTES


def rewrite(path: Path) -> bool:
    """Write the whole file anew, so that nothing of what was deleted is left in it or beside it.

    Other writers wait meanwhile. False when readers held on to the old state for too long: what they need
    stays beside the file until the process that serves it ends. Raises ConfigError.
    """
    # Where there is room for a second copy, and where only its owner reads.
    os.environ.setdefault("SQLITE_TMPDIR", str(path.parent))
    try:
        with closing(sqlite3.connect(path, timeout=REWRITE_SECONDS, isolation_level=None)) as connection:
            connection.execute("VACUUM")
            # It waits for readers as long as a statement waits for writers.
            [(held_up, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"the database {path} cannot be rewritten: {error}") from None
    return not held_up


@contextmanager
def usable(path: Path) -> Generator[None]:
    """What goes wrong with the file of a database becomes a ConfigError of one line, which names it."""
    try:
        yield
    except StoreError as error:
        raise ConfigError(f"the database {path} cannot be used: {_reason(path, error)}") from None
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise ConfigError(f"the folder {path.parent} of the database does not exist") from None
        raise ConfigError(f"the database {path} cannot be used: {error.strerror}") from None


def _reason(path: Path, error: Exception) -> str:
    """What to do about a full disk, which SQLite may call an I/O error; otherwise the error itself."""
    return str(error) if has_room(path) else f"its disk is full, make room there ({error})"


def _holder(file: int) -> str:
    return os.pread(file, 100, 0).decode(errors="replace").strip() or "unknown"
