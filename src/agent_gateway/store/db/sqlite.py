"""The engine of an SQLite file."""

from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util.concurrency import in_greenlet


def sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    """Connections to this file; dispose it."""
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=10, hide_parameters=True
    )

    def connect(connection: Any, _record: object) -> None:
        # The driver's own idea of when a transaction begins is switched off; see `begin`.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: a transaction that reads first can not be upgraded
        # behind another writer's back.
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    def invalidate(connection: Any, _record: object, error: BaseException | None) -> None:
        # A cancelled write may leave rows of its RETURNING unread. Then to close the connection is not
        # enough: it would keep the write lock until that cursor is garbage.
        if error is not None:
            connection.rollback()

    def terminate(connection: Any) -> None:
        # Its own way would stop the thread of a connection while a task of its own closes it: a task that
        # then waits for an answer for ever, and a process that waits for that task at its end.
        if in_greenlet():
            connection.close()
        else:
            connection.terminate()

    engine.dialect.do_terminate = terminate  # type: ignore[method-assign]
    event.listen(engine.sync_engine, "connect", connect)
    event.listen(engine.sync_engine, "begin", begin)
    event.listen(engine.sync_engine, "invalidate", invalidate)
    return engine
