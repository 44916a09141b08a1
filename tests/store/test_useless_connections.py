"""Every state in which a connection answers, or is open, and does not serve."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import make_url, select, text, update

from agent_gateway.errors import StoreError, StoreUnavailable
from agent_gateway.limits import DatabaseLimits
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.prepared import PreparedForPostgres
from agent_gateway.store.db.tables import apps

pytestmark = pytest.mark.anyio

Spoil = Callable[[Any], Awaitable[object]]


async def forget_statements(driver: Any) -> None:
    await driver.execute("DEALLOCATE ALL")


async def leave_a_transaction_open(driver: Any) -> None:
    await driver.execute("BEGIN")


async def leave_a_failed_transaction(driver: Any) -> None:
    await driver.execute("BEGIN")
    with pytest.raises(Exception, match="nowhere"):
        await driver.execute("SELECT * FROM nowhere")


async def only_read(driver: Any) -> None:
    await driver.execute("SET default_transaction_read_only = on")


async def be_in_another_query(driver: Any) -> None:
    query: asyncio.Future[Any] = asyncio.ensure_future(driver.fetch("SELECT pg_sleep(60)"))
    await asyncio.sleep(0)
    query.add_done_callback(_heard)


def _heard(query: asyncio.Future[Any]) -> None:
    assert query.cancelled() or query.exception()


@pytest.mark.parametrize(
    "spoil",
    [forget_statements, leave_a_transaction_open, leave_a_failed_transaction, only_read, be_in_another_query],
)
@pytest.mark.parametrize("way", ["transaction", "statement"])
async def test_a_useless_connection_costs_one_request_at_most(
    postgres: Database, spoil: Spoil, way: str
) -> None:
    """And so do all that were open with it: they are of the same server."""
    write = {"transaction": write_in_transaction, "statement": write_by_statement}[way]
    await concurrently(postgres, 5, read)
    await concurrently(postgres, 5, lambda: spoiled(postgres, spoil))
    failures = 0
    for _ in range(6):
        try:
            await write(postgres)
        except StoreUnavailable:
            failures += 1
    assert failures <= 1
    await concurrently(postgres, 5, lambda: write(postgres))
    await postgres.ping()


async def test_a_query_plan_from_before_a_migration_is_replaced(
    postgres: Database, postgres_url: str
) -> None:
    """A passing failure: what is saved at that moment must not be taken for impossible to save."""

    async def read_slugs() -> None:
        async with postgres.reading() as session:
            await session.execute(select(apps.c.id, apps.c.tenant_id))

    await concurrently(postgres, 5, read_slugs)
    other = Database(postgres_url)
    async with other.transaction() as connection:
        await connection.execute(text("ALTER TABLE apps ALTER COLUMN tenant_id TYPE varchar(200)"))
    await other.close()
    with pytest.raises(StoreUnavailable):
        await read_slugs()
    await concurrently(postgres, 5, read_slugs)


async def test_a_role_that_lost_its_rights_is_unavailable_until_restored(postgres: Database) -> None:
    async with postgres.transaction() as connection:
        await connection.execute(text("CREATE ROLE nobody_much"))

    async def write_as_nobody() -> None:
        async with postgres.transaction() as connection:
            await connection.execute(text("SET LOCAL ROLE nobody_much"))
            await connection.execute(text("DELETE FROM api_keys"))

    try:
        with pytest.raises(StoreUnavailable):
            await write_as_nobody()
    finally:
        async with postgres.transaction() as connection:
            await connection.execute(text("DROP ROLE nobody_much"))


async def test_a_refused_login_is_unavailable_until_accepted(postgres_url: str) -> None:
    """Somebody changes a password or restores a database, and has not finished yet."""
    for url in (
        make_url(postgres_url).set(username="no_such_role"),
        make_url(postgres_url).set(database="no_such_database"),
    ):
        database = Database(url.render_as_string(hide_password=False))
        with pytest.raises(StoreUnavailable, match="no_such"):
            await database.ping()
        await database.close()


async def test_an_idle_connection_that_does_not_answer_is_replaced(postgres_url: str) -> None:
    """The server's process of a connection is frozen: its answer is not waited for by everybody in turn."""
    database = Database(postgres_url, limits=DatabaseLimits(trusted_seconds=0.0))
    async with frozen(await process_of(database)), asyncio.timeout(15):
        for _ in range(5):
            await write_in_transaction(database)
    await database.close()


async def test_a_connection_that_does_not_answer_after_its_last_use_fails_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is trusted for a moment, without a probe: one transaction fails, and nobody trusts it after that."""
    monkeypatch.setattr("agent_gateway.store.db.database.COMMAND_SECONDS", 1.0)
    database = Database(postgres_url, limits=DatabaseLimits(trusted_seconds=600.0))
    async with frozen(await process_of(database)), asyncio.timeout(15):
        with pytest.raises(StoreUnavailable):
            await write_in_transaction(database)
        for _ in range(5):
            await write_in_transaction(database)
    await database.close()


async def process_of(database: Database) -> int:
    """The number of the server's process behind the one connection that is open."""
    async with database.reading() as session:
        return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


@asynccontextmanager
async def frozen(pid: int) -> AsyncGenerator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def concurrently(database: Database, times: int, work: Callable[..., Awaitable[object]]) -> None:
    """So often at the same time, on as many connections; `read` is given the database."""
    arguments = (database,) if work is read else ()
    await asyncio.gather(*(work(*arguments) for _ in range(times)))


async def read(database: Database) -> None:
    async with database.reading() as session:
        await session.execute(text("SELECT 1"))


async def write_by_statement(database: Database) -> None:
    """As the four writes of a turn do."""
    await database.fetch(WRITE, {})


WRITE = PreparedForPostgres(update(apps).values(tenant_id=apps.c.tenant_id).returning(apps.c.id))


async def write_in_transaction(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE apps SET tenant_id = tenant_id"))


async def spoiled(database: Database, spoil: Spoil) -> None:
    async with database.reading() as session:
        connection = await session.connection()
        await connection.execute(text("UPDATE apps SET tenant_id = tenant_id"))
        await connection.commit()
        raw = await connection.get_raw_connection()
        try:
            await spoil(raw.driver_connection)
        except StoreError:
            pytest.fail("the connection was not usable before")
