"""Shielded work: it outlives those who wait for it, and belongs to one database."""

import asyncio

import pytest

from agent_gateway.limits import DatabaseLimits
from agent_gateway.store.db.database import Database

pytestmark = pytest.mark.anyio


class Work:
    """A unit of work that ends when a test lets it."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.ended = False

    async def run(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        self.ended = True
        return "done"


async def test_work_runs_to_its_end_though_its_waiter_is_cancelled(database: Database) -> None:
    work = Work()
    waiting = asyncio.create_task(database.shielded(work.run()))
    async with asyncio.timeout(20):
        await work.begun.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        work.may_end.set()
        assert await database.shielded.wait(10)
    assert work.ended


async def test_closing_a_database_waits_for_its_own_work_only(database_url: str) -> None:
    database = Database(database_url, limits=DatabaseLimits(close_seconds=30.0))
    other, ours, theirs = Database(database_url), Work(), Work()
    waiting = [asyncio.create_task(database.shielded(ours.run()))]
    waiting += [asyncio.create_task(other.shielded(theirs.run()))]
    async with asyncio.timeout(20):
        await ours.begun.wait()
        await theirs.begun.wait()
        asyncio.get_running_loop().call_soon(ours.may_end.set)
        await database.close()
        assert ours.ended
        assert not theirs.ended
        theirs.may_end.set()
        await other.close()
        assert await asyncio.gather(*waiting) == ["done", "done"]


async def test_an_error_reaches_the_waiter(database: Database) -> None:
    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await database.shielded(fail())
    assert await database.shielded.wait(0)
