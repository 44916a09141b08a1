"""Pools of connections, writers that wait for each other, and the database's time."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text

from agent_gateway.errors import StoreUnavailable
from agent_gateway.limits import DatabaseLimits
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from tests.support.store_world import METADATA, World, ask

pytestmark = pytest.mark.anyio


async def test_i5_maintenance_works_while_requests_use_up_their_pool(postgres: Database) -> None:
    world = await World.make(postgres)
    turn = await world.begin()
    release = asyncio.Event()

    async def request() -> None:
        async with postgres.reading() as session:
            await session.execute(text("SELECT 1"))
            arrived.release()
            await release.wait()

    arrived = asyncio.Semaphore(0)
    requests = [asyncio.create_task(request()) for _ in range(8)]
    async with asyncio.timeout(20):
        for _ in range(5):
            await arrived.acquire()
        waiting = asyncio.create_task(world.turns.reader.view(world.app.id, "ann", turn.task_id))
        assert await world.turns.owned.heartbeat([turn]) == {turn.task_id: False}
        assert not waiting.done()
        release.set()
        assert await waiting is not None
        await asyncio.gather(*requests)


async def test_a_pool_that_stays_empty_is_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(database_url, pool_size=1, limits=DatabaseLimits(wait_seconds=0.1))
    async with database.reading() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(StoreUnavailable):
            await database.now()
        if database.is_sqlite:
            # Its probe has a connection of its own.
            await database.ping()
        else:
            with pytest.raises(StoreUnavailable):
                await database.ping()
    await database.now()
    await database.ping()
    await database.close()


async def test_requests_do_not_wait_for_a_duty_whose_connection_is_held(postgres: Database) -> None:
    """It counts as open while it is used: what is missing is opened, and nothing is waited for."""
    await postgres.hold()
    async with asyncio.timeout(5), postgres.transaction("duty"):
        await postgres.ping()


async def test_work_abandoned_twice_ends_in_time(postgres: Database) -> None:
    """By a process that leaves, and again when it closes; what takes its time to end is no hindrance."""
    began, cancelled, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with postgres.transaction():
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
                await go_on.wait()

    working = asyncio.create_task(work())
    async with asyncio.timeout(20):
        await began.wait()
        postgres.abort()
        await cancelled.wait()
        postgres.abort()
        go_on.set()
        with pytest.raises(StoreUnavailable):
            await working


async def test_a_writer_does_not_block_readers(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE apps SET tenant_id = 'x'"))
        async with asyncio.timeout(20):
            await database.ping()
            async with database.reading() as reader:
                await reader.execute(select(METADATA.tables["conversations"]))


async def test_writers_of_two_processes_wait_for_each_other(database_url: str) -> None:
    """On SQLite, too, where each process only knows its own writers."""
    one, two = Database(database_url), Database(database_url)
    worlds = [await World.make(one)]
    worlds.append(World(two, worlds[0].app, worlds[0].other_app))
    results = await asyncio.gather(
        *(world.turns.intake.begin(world.ann, ask()) for world in worlds * 10), return_exceptions=True
    )
    assert [result for result in results if isinstance(result, BaseException)] == []
    await one.close()
    await two.close()


# --- time


@pytest.mark.parametrize("seconds", [0, 90, -86400.5])
async def test_database_time_is_aware_utc(database: Database, seconds: float) -> None:
    before = datetime.now(UTC)
    async with database.reading() as session:
        told = (await session.execute(select(now_plus(seconds)))).scalar_one()
    after = datetime.now(UTC)
    assert isinstance(told, datetime)
    assert told.utcoffset() is not None
    assert (before.timestamp() - 0.1) <= told.timestamp() - seconds <= (after.timestamp() + 0.1)


async def test_database_time_advances_within_a_transaction(database: Database) -> None:
    """A lease counts from the write, not from when its transaction began to wait for a lock."""
    async with database.transaction() as session:
        first = (await session.execute(select(now_plus()))).scalar_one()
        async with asyncio.timeout(20):
            while (await session.execute(select(now_plus()))).scalar_one() <= first:
                pass


async def test_sqlite_waits_and_does_not_lose_what_was_committed(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    async with database.reading() as session:
        told = [
            (await session.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        ]
    assert told == ["wal", 1, 5000, 1]
    await database.close()
