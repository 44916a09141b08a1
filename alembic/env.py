"""Runs migrations: on the connection that store/db/migrations.py hands over, or by hand (`alembic …`) on
the database of the settings, under the same lock."""

import asyncio
import logging
from typing import Literal

from sqlalchemy import JSON, Connection
from sqlmodel import AutoString

from agent_gateway.settings import Settings
from agent_gateway.store.db.column_types import UtcDateTime
from agent_gateway.store.db.migrations import exclusive
from agent_gateway.store.db.tables import Row
from agent_gateway.store.db.url import async_url
from alembic import context


def render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """A migration is history: it names plain types and none of the project's, which may change."""
    match item:
        case UtcDateTime() if kind == "type":
            return 'sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")'
        case AutoString() if kind == "type":
            return "sa.String()"
        case JSON() if kind == "type":
            return 'sa.JSON().with_variant(sa.dialects.postgresql.JSONB(), "postgresql")'
        case _:
            return False


def compare_server_default(
    _context: object,
    _found_column: object,
    _wanted_column: object,
    found: str | None,
    _wanted: object,
    wanted: str | None,
) -> bool | None:
    """Alembic does not know SQLite's `('')` for the empty string; all else it knows (None)."""
    return False if wanted == "" and found == "('')" else None


def run(connection: Connection | None = None, *, dialect: str | None = None) -> None:
    """Do what the command asks for, on this connection; with a dialect's name only, write it as SQL."""
    context.configure(
        connection=connection,
        dialect_name=dialect,
        literal_binds=connection is None,
        target_metadata=Row.metadata,
        compare_type=True,
        compare_server_default=compare_server_default,
        render_as_batch=True,
        render_item=render_item,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_by_hand() -> None:
    settings = Settings.read()
    if settings.embedded_database:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with exclusive(async_url(settings.resolved_database_url())) as connection:
        await connection.run_sync(run)


handed_over: Connection | None = context.config.attributes.get("connection")
if context.is_offline_mode():
    run(dialect=async_url(Settings.read().resolved_database_url()).get_backend_name())
elif handed_over is not None:
    run(handed_over)
else:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(run_by_hand())
