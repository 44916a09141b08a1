from collections.abc import AsyncGenerator

import pytest

from agent_gateway.store.db.database import Database
from tests.support.store_world import World


@pytest.fixture
async def world(database: Database) -> World:
    return await World.make(database)


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncGenerator[Database]:
    """For what only Postgres can do."""
    database = Database(postgres_url)
    yield database
    await database.close()
