"""Deletes runs of the embedded agent with their events: old ones, and those of removed conversations."""

import asyncio
from collections.abc import Collection
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import runs
from agent_gateway.store.runs.statements import DELETE_EVENTS, DELETE_RUNS, FORGOTTEN, OF_CONVERSATION, OLD

LEAST_SECONDS: Final = 3600.0
PAUSE_SECONDS: Final = 0.005
"""Between two transactions, so that appends come in between."""


def kept_seconds(turn_seconds: float) -> float:
    """How long a run is kept after its end: its turn may need it, but takes no longer than this."""
    return max(LEAST_SECONDS, turn_seconds)


async def prune_runs(database: Database, keep_seconds: float) -> int:
    """Delete the runs that ended so long ago, or whose owner has been gone for so long; returns how many.

    Any number of processes may do this at once.
    """
    deleted = 0
    for which in (OLD, FORGOTTEN):
        found = True
        while found:
            async with database.transaction() as connection:
                ids = list(await connection.scalars(which, {"since": -keep_seconds}))
                found = bool(ids)
                deleted += await _delete(connection, ids)
            await asyncio.sleep(PAUSE_SECONDS)
    return deleted


async def count_old_runs(database: Database, keep_seconds: float) -> int:
    """How many runs ended so long ago."""
    async with database.reading() as session:
        counted = select(func.count()).where(runs.c.ended_at < now_plus(-keep_seconds))
        return await session.scalar(counted) or 0


async def delete_runs(connection: AsyncConnection, conversation_id: str) -> int:
    """Delete the runs of a conversation that are in this database; returns how many.

    One that still goes on is fenced by that: its process learns it with its next append.
    """
    found = await connection.scalars(OF_CONVERSATION, {"conversation": conversation_id})
    return await _delete(connection, list(found))


async def _delete(connection: AsyncConnection, ids: Collection[str]) -> int:
    if not ids:
        return 0
    deleted = await connection.execute(DELETE_RUNS, {"ids": list(ids)})
    await connection.execute(DELETE_EVENTS, {"ids": list(ids)})
    return deleted.rowcount
