"""A write that is cancelled on its way leaves nothing behind, least of all a lock."""

import asyncio
import random

import pytest
from sqlalchemy import text

from agent_gateway.store.db.database import Database

pytestmark = pytest.mark.anyio

ROUNDS = 150


async def test_a_cancelled_write_leaves_no_lock(database: Database) -> None:
    """At whatever moment, also with rows of a RETURNING still unread; the next write goes through."""
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE counters (n INTEGER)"))
        await connection.execute(text("INSERT INTO counters VALUES (0)"))

    async def count() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE counters SET n = n + 1 RETURNING n"))

    chance = random.Random(1)
    kept: list[asyncio.Task[None]] = []
    for _ in range(ROUNDS):
        writing = asyncio.create_task(count())
        await asyncio.sleep(chance.random() * 0.002)
        writing.cancel()
        await asyncio.wait({writing})
        # With its error and all that hangs on that, as a runner that continues keeps it.
        kept.append(writing)
        async with asyncio.timeout(20):
            await count()
    async with database.reading() as session:
        counted = (await session.execute(text("SELECT n FROM counters"))).scalar_one()
    assert ROUNDS <= counted <= 2 * ROUNDS


async def test_a_write_that_is_cancelled_again_leaves_no_task(database: Database) -> None:
    """As a process does it that ends: what it cannot wait for would keep it from ever ending."""
    before = asyncio.all_tasks()
    chance = random.Random(2)

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE apps SET tenant_id = 'x'"))

    for _ in range(ROUNDS):
        writing = asyncio.create_task(write())
        await asyncio.sleep(chance.random() * 0.002)
        for _ in range(2):
            writing.cancel()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        await asyncio.wait({writing})
    if left := asyncio.all_tasks() - before:
        _, hanging = await asyncio.wait(left, timeout=20)
        assert not hanging
