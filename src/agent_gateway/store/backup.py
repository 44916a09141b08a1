"""A copy of a database in SQLite, taken while a gateway serves it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import URL, NullPool, create_engine, select

from agent_gateway.errors import ConfigError
from agent_gateway.store.db.migrations import known_revisions
from agent_gateway.store.db.tables import files
from agent_gateway.store.objects import object_key

WAIT_SECONDS: Final = 60.0
"""How long a copy waits for somebody who holds the file for themselves."""


def copy_database(path: Path, target: Path) -> None:
    """Write the database as it is at this moment to a new file, without the remains of what was deleted.

    Those who use it go on meanwhile. Raises ConfigError.
    """
    try:
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise ConfigError(f"the database {path} cannot be copied to {target.parent}: {error}") from None


def revision_of(path: Path) -> str:
    """The revision of the schema of a copy. Raises ConfigError when the copy is damaged."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            [(found,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if found == "ok":
                [(revision,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
                return str(revision)
    except sqlite3.Error as error:
        found = str(error)
    raise ConfigError(f"the copy of the database is damaged: {found}")


def check_revision(revision: str) -> None:
    """Raise ConfigError for the schema of a newer release."""
    if revision not in known_revisions():
        raise ConfigError(
            f"the backup is of a newer release: its schema is {revision}, which this one does not know"
        )


def file_keys(path: Path) -> list[str]:
    """Where the bytes are of all files that a copy knows."""
    query = select(files.c.id, files.c.created_at).where(files.c.deleted_at.is_(None)).order_by(files.c.id)
    with create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool).connect() as connection:
        return [object_key(row.created_at, row.id) for row in connection.execute(query)]
