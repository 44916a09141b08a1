"""The database's seam: URLs, and what foreign errors become."""

import asyncio
import logging
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, Select, Text, cast, insert, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from agent_gateway.domain.ids import AppVersionId, new_id
from agent_gateway.errors import ConfigError, StoreError, StoreRejected, StoreUnavailable
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.errors import mapped_errors
from agent_gateway.store.db.url import async_url
from tests.support.databases import drivers_threads_end
from tests.support.store_world import METADATA, World, ask

pytestmark = pytest.mark.anyio

SECRET = "swordfish"
conversations, end_users = (METADATA.tables[name] for name in ("conversations", "end_users"))


# --- URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p%40ss@host:5433/db", "postgresql+asyncpg://u:p%40ss@host:5433/db"),
        ("postgresql://host/db", "postgresql+asyncpg://host/db"),
        ("postgresql+asyncpg://host/db", "postgresql+asyncpg://host/db"),
        ("postgresql+psycopg://host/db", "postgresql+asyncpg://host/db"),
        ("postgresql://host/db?sslmode=require", "postgresql+asyncpg://host/db?sslmode=require"),
        ("postgresql://u:@/db?host=/var/run", "postgresql+asyncpg://u:@/db?host=/var/run"),
        ("sqlite:////var/data/x.db", "sqlite+aiosqlite:////var/data/x.db"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite:///x.db"),
    ],
)
def test_url_forms_of_other_tools_are_accepted(url: str, expected: str) -> None:
    assert async_url(url) == async_url(expected)
    assert async_url(url).render_as_string(hide_password=False).replace("%2F", "/") == expected


def test_other_databases_are_refused() -> None:
    with pytest.raises(ConfigError, match="mysql"):
        async_url(f"mysql://root:{SECRET}@host/db")


@pytest.mark.parametrize("url", [SECRET, f"postgresql://u:{SECRET}@host:port/db"])
def test_an_invalid_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="AGENT_GATEWAY_DATABASE_URL") as refused:
        async_url(url)
    assert SECRET not in str(refused.value)


# --- errors


async def test_a_reachable_database_answers_a_ping(database: Database) -> None:
    await database.ping()


async def test_bad_sql_is_rejected(database: Database) -> None:
    for sql in ("SELEKT 1", "SELECT * FROM no_such_table", "SELECT no_such_column FROM apps"):
        with pytest.raises(StoreRejected):
            async with database.reading() as session:
                await session.execute(text(sql))
    await database.ping()


@pytest.mark.parametrize(
    "statement",
    [
        select(conversations).where(conversations.c.id == f"{SECRET}-is-no-uuid"),
        select(conversations).where(conversations.c.name == f"{SECRET}\ud800"),
        select(cast(literal(SECRET, Text()), Integer())),
        select(cast(literal(SECRET, Text()), JSONB())),
    ],
    ids=["uuid", "surrogate", "integer", "json"],
)
async def test_an_unfit_value_is_rejected_without_being_quoted(
    postgres: Database, statement: Select[Any]
) -> None:
    """Were it taken for a passing error, `finish` would try it for ever."""
    async with postgres.reading() as session:
        with pytest.raises(StoreRejected) as rejected, mapped_errors:
            await session.execute(statement)
    assert SECRET not in "".join(traceback.format_exception(rejected.value))
    await postgres.ping()


async def test_nul_is_rejected_where_it_cannot_be_stored(postgres: Database) -> None:
    """Text is cleaned at the edges; should one forget it, no user's text may reach the log."""
    world = await World.make(postgres)
    async with world.unchanged():
        with pytest.raises(StoreRejected) as rejected:
            await world.turns.intake.begin(world.ann, ask(query=f"{SECRET}\x00"))
    assert SECRET not in "".join(traceback.format_exception(rejected.value))


async def test_integrity_errors_contain_no_values(world: World) -> None:
    row = {"id": new_id(), "app_id": world.app.id, "external_id": SECRET, "created_at": datetime.now(UTC)}
    await world.execute(insert(end_users).values(row))
    with pytest.raises(IntegrityError) as error:
        await world.execute(insert(end_users).values({**row, "id": new_id()}))
    assert SECRET not in str(error.value)


async def test_a_missing_reference_is_an_error(world: World) -> None:
    """Foreign keys count on SQLite, too."""
    world.app = type(world.app)(world.app.id, AppVersionId(new_id()), world.app.config)
    async with world.unchanged():
        with pytest.raises(StoreError):
            await world.turns.intake.begin(world.ann, ask())


async def test_a_block_that_raises_writes_nothing(world: World) -> None:
    async def write_and_fail() -> None:
        async with world.database.transaction() as session:
            await session.execute(text("DELETE FROM api_keys"))
            raise RuntimeError

    await world.keys.put(world.app.id, "key", "")
    async with world.unchanged():
        with pytest.raises(RuntimeError):
            await write_and_fail()


async def test_a_cancelled_write_frees_its_connection(world: World) -> None:
    async def write() -> None:
        async with world.database.transaction() as session:
            await session.execute(text("DELETE FROM api_keys"))
            entered.set()
            await asyncio.Event().wait()

    await world.keys.put(world.app.id, "key", "")
    async with world.unchanged():
        for _ in range(8):
            entered = asyncio.Event()
            task = asyncio.create_task(write())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_an_unreachable_database_is_unavailable(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'no' / 'folder.db'}", f"postgresql://u:{SECRET}@127.0.0.1:1/db"):
        database = Database(url)
        with pytest.raises(StoreUnavailable) as error:
            await database.ping()
        assert SECRET not in "".join(traceback.format_exception(error.value))
        await database.close()
    await drivers_threads_end()


async def test_a_wrong_password_or_database_is_a_store_error(postgres_url: str) -> None:
    database = Database(postgres_url.replace("/test_", "/no_such_"))
    with pytest.raises(StoreError):
        await database.ping()
    await database.close()


async def backend_pid(session: AsyncSession | AsyncConnection) -> int:
    found = await session.execute(text("SELECT pg_backend_pid()"))
    return int(found.scalar_one())


async def cut(url: str, victims: list[int]) -> None:
    """As a restart of the server does it; waits until they are gone."""
    killer = Database(url)
    async with killer.reading() as session:
        for victim in victims:
            await session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": victim})
    await killer.close()


@pytest.mark.parametrize("duty", [False, True])
async def test_a_connection_cut_in_a_transaction_is_unavailable(
    postgres: Database, postgres_url: str, duty: bool
) -> None:
    async def begin_and_be_cut() -> None:
        async with postgres.transaction("duty" if duty else "requests") as session:
            victims.append(await backend_pid(session))
            await cut(postgres_url, victims)
            await session.execute(text("SELECT 1"))

    victims: list[int] = []
    with pytest.raises(StoreUnavailable):
        await begin_and_be_cut()
    async with postgres.transaction("duty" if duty else "requests") as session:
        assert await backend_pid(session) not in victims


async def test_idle_connections_that_were_cut_are_replaced(postgres: Database, postgres_url: str) -> None:
    """As after a restart of the server: nobody notices but the pool."""
    async with postgres.reading() as first, postgres.reading() as second:
        victims = [await backend_pid(first), await backend_pid(second)]
    await cut(postgres_url, victims)
    async with postgres.reading() as first, postgres.reading() as second:
        assert not {await backend_pid(first), await backend_pid(second)} & set(victims)


async def test_r6_a_frozen_transaction_gives_its_locks_back(postgres_url: str) -> None:
    frozen, patient = Database(postgres_url, lease_seconds=0.2), Database(postgres_url, lease_seconds=60)
    world = await World.make(patient)
    write = text("UPDATE apps SET tenant_id = 'x'")

    async def freeze() -> None:
        async with frozen.transaction() as session:
            await session.execute(write)
            await world.execute(write)  # waits for the row until the server ends the frozen one
            await session.execute(write)

    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable):
            await freeze()
    await frozen.close()
    await patient.close()


async def test_r6_waiting_for_a_lock_is_bounded(postgres_url: str) -> None:
    holder, hurried = Database(postgres_url, lease_seconds=60), Database(postgres_url, lease_seconds=0.2)
    world = await World.make(hurried)
    write = text("UPDATE apps SET tenant_id = 'x'")
    async with asyncio.timeout(20):
        async with holder.transaction() as session:
            await session.execute(write)
            with pytest.raises(StoreUnavailable):
                await world.execute(write)
        await world.execute(write)
    await holder.close()
    await hurried.close()


async def test_errors_contain_no_statements_or_values(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await world.begin(query=SECRET)
    assert SECRET not in caplog.text
