"""Whether the role of the settings may do with the tables what the gateway does."""

from typing import Final

from sqlalchemy import delete, false, insert, select, update

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.tables import Row

_TABLES: Final = Row.metadata.sorted_tables


async def prove_rights(database: Database) -> None:
    """Insert, change and delete no row of each table: the database checks the rights nevertheless.

    Raises StoreUnavailable or StoreRejected.
    """
    async with database.transaction() as connection:
        for table in _TABLES:
            names = [column.name for column in table.columns]
            await connection.execute(insert(table).from_select(names, select(table).where(false())))
            await connection.execute(update(table).where(false()).values({names[0]: table.c[names[0]]}))
            await connection.execute(delete(table).where(false()))
