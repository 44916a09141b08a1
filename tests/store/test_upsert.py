"""Upserts: the same effect on both databases."""

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.upsert import Upsert

pytestmark = pytest.mark.anyio

scores = Table(
    "scores", MetaData(), Column("name", String, primary_key=True), Column("score", Integer, nullable=False)
)
ADD = Upsert(
    scores,
    ["name"],
    values={},
    change=lambda new: {"score": scores.c.score + new.score},
    returning=[scores.c.score],
)
FIRST = Upsert(scores, ["name"], values={"score": 1})
HIGHEST = Upsert(
    scores,
    ["name"],
    values={},
    change=lambda new: {"score": new.score},
    only_if=lambda new: scores.c.score < new.score,
)


@pytest.fixture
async def table(database: Database) -> Database:
    async with database.transaction() as connection:
        await connection.run_sync(scores.create)
    return database


async def _score(database: Database) -> int:
    async with database.reading() as session:
        return (await session.execute(select(scores.c.score).where(scores.c.name == "a"))).scalar_one()


async def test_a_second_row_changes_the_first_and_returns_it(table: Database) -> None:
    async with table.transaction() as connection:
        assert (await ADD.run(connection, {"name": "a", "score": 2})).scalar_one() == 2
        assert (await ADD.run(connection, {"name": "a", "score": 3})).scalar_one() == 5
        assert (await ADD.run(connection, {"name": "b", "score": 1})).scalar_one() == 1
    assert await _score(table) == 5


async def test_without_a_change_the_first_row_stays(table: Database) -> None:
    async with table.transaction() as connection:
        await ADD.run(connection, {"name": "a", "score": 7})
        await FIRST.run(connection, {"name": "a"})
    assert await _score(table) == 7


async def test_a_change_can_depend_on_the_row_that_is_there(table: Database) -> None:
    async with table.transaction() as connection:
        for score in (4, 9, 6):
            await HIGHEST.run(connection, {"name": "a", "score": score})
    assert await _score(table) == 9
