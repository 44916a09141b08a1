"""pgbouncer stands before the database: nothing that a session keeps can be counted on."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import migrate, schema_is_current
from tests.support.chat import Chat
from tests.support.databases import empty_database_url
from tests.support.fakes.script import Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.pgbouncer import Mode, PgBouncer
from tests.support.rows import installed

__all__ = ["empty_database_url"]

pytestmark = pytest.mark.anyio

CHATS = 12


@pytest.fixture(params=["transaction", "session"])
def mode(request: pytest.FixtureRequest) -> Mode:
    found: Mode = request.param
    return found


@pytest.fixture
def bouncer(postgres_url: str, mode: Mode) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_url, mode) as running:
        yield running


def test_several_processes_serve_turns_through_pgbouncer(
    bouncer: PgBouncer, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """More turns at once than pgbouncer has connections, stops, lists, and a process that leaves."""
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    answers: list[str] = []

    def talk(server: GatewayServer, number: int) -> None:
        with server.client() as client:
            chat = Chat(client, f"{user}-{number}")
            answers.append(chat.streaming().answer)
            assert len(chat.conversations()["data"]) == 1

    with GatewayServer(tmp_path / "1", database_url=bouncer.url(), backend_url=fake.url) as one:
        installed(one)
        with GatewayServer(tmp_path / "2", database_url=bouncer.url(), backend_url=fake.url) as two:
            installed(two)
            talking = [
                threading.Thread(target=talk, args=((one, two)[number % 2], number))
                for number in range(CHATS)
            ]
            for each in talking:
                each.start()
            fake.wait_until(lambda: fake.open_streams == CHATS)
            gate.open()
            for each in talking:
                each.join(20)
            assert answers == ["So far, so good"] * CHATS
        with one.client() as client:
            for _ in range(20):
                assert client.get("/readyz").status_code == 200
                assert Chat(client, user).blocking()["answer"] == "So far, so good"
        assert one.gateway.database._postgres
        assert one.gateway.database._postgres.pooled


def test_turns_survive_a_restart_of_pgbouncer(
    bouncer: PgBouncer, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with (
        GatewayServer(tmp_path, database_url=bouncer.url(), backend_url=fake.url, ping_seconds=0.1) as server,
        installed(server).client() as client,
        Chat(client, user).open() as stream,
    ):
        stream.until("So far")
        bouncer.stop()
        wait_until(lambda: client.get("/readyz").status_code == 503)
        gate.open()
        stream.until("so good")
        bouncer.start()
        assert stream.rest().last["event"] == "message_end"
        wait_until(lambda: client.get("/readyz").status_code == 200)


@pytest.mark.parametrize("empty_database_url", ["postgres"], indirect=True)
async def test_the_schema_is_migrated_through_pgbouncer(empty_database_url: str, mode: Mode) -> None:
    with PgBouncer(empty_database_url, mode) as bouncer:
        databases = [Database(bouncer.url()) for _ in range(3)]
        await asyncio.gather(*(migrate(database) for database in databases))
        for database in databases:
            assert await schema_is_current(database)
            await database.close()


async def settings_of(connection: AsyncConnection) -> list[str]:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "search_path")
    found = await connection.execute(
        text("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
    )
    return list(found.one())


async def test_every_transaction_sets_its_timeouts_and_leaves_no_settings_behind(bouncer: PgBouncer) -> None:
    database = Database(bouncer.url(options="-c search_path=public,extra"), lease_seconds=8)
    for _ in range(5):
        async with database.transaction() as one, database.transaction() as two:
            for connection in (one, two):
                assert await settings_of(connection) == ["9s", "4s", "4s", "public,extra"]
    await database.close()
    # Through the same few connections of pgbouncer, as another program of the same house.
    other = await asyncpg.connect(bouncer.url().replace("+asyncpg", ""), statement_cache_size=0)
    for _ in range(10):
        async with other.transaction():
            assert await other.fetchval("SHOW statement_timeout") == "0"
            assert await other.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
    await other.close()


async def test_a_frozen_transaction_releases_its_locks(bouncer: PgBouncer, postgres_url: str) -> None:
    frozen, patient = Database(bouncer.url(), lease_seconds=0.2), Database(postgres_url, lease_seconds=60)
    async with asyncio.timeout(10):
        async with frozen._connections.writing("requests") as connection:
            await connection.execute(text("UPDATE apps SET tenant_id = 'x'"))
            async with patient.transaction() as other:
                await other.execute(text("UPDATE apps SET tenant_id = 'y'"))
            await connection.invalidate()
    await frozen.close()
    await patient.close()


@pytest.mark.parametrize("said_so", [{"pgbouncer": "true"}, {"statement_cache_size": "0"}, {}])
async def test_pgbouncer_is_detected_or_named_in_the_url(postgres_url: str, said_so: dict[str, str]) -> None:
    with PgBouncer(postgres_url, "transaction") as bouncer:
        database = Database(bouncer.url(**said_so))
        assert database._postgres
        assert database._postgres.pooled is bool(said_so)
        await database.ping()
        assert database._postgres.pooled
        await database.close()
        assert ("unsupported startup parameter" in bouncer.log) is not bool(said_so)


async def test_a_pgbouncer_that_accepts_any_parameter_is_detected(postgres_url: str) -> None:
    """As many hosts set it up: it keeps none of them, and says nothing."""
    ignored = "statement_timeout, lock_timeout, idle_in_transaction_session_timeout"
    with PgBouncer(postgres_url, "transaction", ignores=ignored) as bouncer:
        database = Database(bouncer.url(), lease_seconds=8)
        async with database.transaction() as connection:
            assert (await settings_of(connection))[:3] == ["9s", "4s", "4s"]
        assert "unsupported" not in bouncer.log
        await database.close()


async def test_statements_stay_prepared_without_pgbouncer(postgres_url: str) -> None:
    """The direct way pays nothing for any of this."""
    database = Database(postgres_url)
    assert database._postgres
    statement = text("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT slug FROM apps'")
    async with database.transaction() as connection:
        await connection.execute(text("SELECT slug FROM apps"))
        assert (await connection.execute(statement)).scalar_one() == 1
    assert not database._postgres.pooled
    await database.close()


@pytest.mark.slow
def test_a_missing_database_behind_pgbouncer_is_reported(
    postgres_url: str, mode: Mode, tmp_path: Path
) -> None:
    """A missing database is reported in words, and the process answers its probes."""
    missing = make_url(postgres_url).set(database="no_such_database").render_as_string(hide_password=False)
    with (
        PgBouncer(missing, mode) as bouncer,
        GatewayServer(tmp_path, database_url=bouncer.url()) as server,
    ):
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"{server.url}/readyz", timeout=20, trust_env=False).status_code == 503
