"""Migrations on both databases: there and back, many at once, and what counts as current."""

import asyncio
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import AppConfig
from agent_gateway.domain.turns import App, Caller
from agent_gateway.errors import StoreUnavailable
from agent_gateway.store.db import postgres as postgres_module
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import LOCK, _revisions, exclusive, migrate, schema_is_current
from tests.support.databases import KINDS, drivers_threads_end, run_alembic
from tests.support.paths import ROOT
from tests.support.store_world import METADATA, World

pytestmark = pytest.mark.anyio

HEAD, OLDER = _revisions()


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncGenerator[Database]:
    database = Database(empty_database_url)
    yield database
    await database.close()


def alembic(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    """`alembic …` as a person calls it, in the project's folder."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "alembic", *arguments],
        cwd=ROOT,
        env={"AGENT_GATEWAY_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def tables(database: Database) -> set[str]:
    async with exclusive(database.url) as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def stamp(database: Database, revision: str) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})


async def until_waited_for(connection: AsyncConnection) -> None:
    """Until somebody else waits for the lock."""
    blocked = text("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock AND NOT granted")
    async with asyncio.timeout(30):
        while not (await connection.execute(blocked, {"lock": LOCK & 0xFFFFFFFF})).first():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_schema_migrates_up_and_down_and_up_again(empty: Database) -> None:
    await migrate(empty)
    await run_alembic(empty, "check")  # raises when the tables are not what tables.py says
    assert await tables(empty) == {*METADATA.tables, "alembic_version"}

    await run_alembic(empty, "downgrade", "base")
    assert await tables(empty) == {"alembic_version"}
    assert not await schema_is_current(empty)

    await migrate(empty)
    await run_alembic(empty, "check")


async def test_old_conversations_keep_the_version_of_their_newest_turn(world: World) -> None:
    first = await world.ended()
    await world.apps.apply("one", AppConfig(name="Changed", on_change="follow"))
    changed = await world.apps.find_by_slug("one")
    assert changed is not None
    app = App(changed.id, changed.version_id, changed.config)
    second = await world.ended(Caller(app, "ann"), first.conversation_id)
    assert second.app.version_id == app.version_id != first.app.version_id
    await run_alembic(world.database, "downgrade", "0001")
    await migrate(world.database)
    table = METADATA.tables["conversations"]
    async with world.database.reading() as session:
        assert (await session.execute(select(table.c.app_version_id))).scalars().all() == [app.version_id]


async def test_check_detects_a_drift(database: Database) -> None:
    async with exclusive(database.url) as connection:
        await connection.execute(text("DROP INDEX uq_turns_active"))
    with pytest.raises(Exception, match="uq_turns_active"):
        await run_alembic(database, "check")


async def test_alembic_by_hand_uses_the_database_of_the_settings(empty_database_url: str) -> None:
    up = alembic("upgrade", "head", url=empty_database_url)
    assert up.returncode == 0, up.stderr
    assert "Running upgrade  -> 0001" in up.stderr
    assert f"{HEAD} (head)" in alembic("current", url=empty_database_url).stdout


@pytest.mark.parametrize(
    "url", ["postgresql://nobody@nowhere/none", "sqlite:///nowhere/none.db"], ids=KINDS[::-1]
)
def test_alembic_by_hand_prints_sql_without_a_database(url: str) -> None:
    sql = alembic("upgrade", "head", "--sql", url=url)
    assert sql.returncode == 0, sql.stderr
    assert "CREATE UNIQUE INDEX uq_turns_active" in sql.stdout
    assert ("TIMESTAMP WITH TIME ZONE" in sql.stdout) == url.startswith("postgresql")


async def test_concurrent_migrations_run_once(empty_database_url: str) -> None:
    replicas = [Database(empty_database_url) for _ in range(8)]
    try:
        async with asyncio.timeout(30):
            await asyncio.gather(*(migrate(replica) for replica in replicas))
        assert all([await schema_is_current(replica) for replica in replicas])
    finally:
        for replica in replicas:
            await replica.close()


async def test_a_locked_new_file_does_not_block_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user of the file may need the loop to finish."""
    tried_again = asyncio.Event()
    loop, waited_in = asyncio.get_running_loop(), set[int]()

    def sleep(_: float) -> None:
        waited_in.add(threading.get_ident())
        loop.call_soon_threadsafe(tried_again.set)

    monkeypatch.setattr("agent_gateway.store.db.migrations.time.sleep", sleep)
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as user:
        user.execute("BEGIN IMMEDIATE")  # the lock for which SQLite does not wait
        migrating = asyncio.create_task(migrate(database))
        async with asyncio.timeout(30):
            await tried_again.wait()
        user.execute("COMMIT")
    async with asyncio.timeout(30):
        await migrating
    assert waited_in
    assert threading.get_ident() not in waited_in
    assert await schema_is_current(database)
    await database.close()


async def test_concurrent_processes_migrate_once(empty_database_url: str) -> None:
    """As when a whole deployment starts: all race for a database that does not exist yet."""
    program = (
        "import asyncio, sys\n"
        "from agent_gateway.store.db.database import Database\n"
        "from agent_gateway.store.db.migrations import migrate, schema_is_current\n"
        "async def main():\n"
        "    database = Database(sys.argv[1])\n"
        "    await migrate(database)\n"
        "    assert await schema_is_current(database)\n"
        "    await database.close()\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "asyncio.run(main())\n"
    )
    started = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, empty_database_url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    async with asyncio.timeout(60):
        for process in started:
            assert process.stdout is not None
            await process.stdout.readline()
        await asyncio.gather(*(process.communicate(b"go\n") for process in started))
    assert [process.returncode for process in started] == [0, 0, 0]


async def test_a_statement_of_a_migration_has_no_time_limit(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the server nor at the driver: an index of a large table takes minutes."""
    monkeypatch.setattr(postgres_module, "COMMAND_SECONDS", 0.1)
    database = Database(postgres_url)
    async with exclusive(database.url) as connection:
        await connection.execute(text("SELECT pg_sleep(1)"))
    await database.close()


async def test_waiting_for_the_lock_has_no_time_limit(postgres_url: str) -> None:
    """The limits of the store's own connections would end the wait, or the one who is waited for."""
    database = Database(postgres_url, lease_seconds=0.1)
    try:
        async with exclusive(database.url) as connection:
            limits = [
                (await connection.execute(text(f"SHOW {name}"))).scalar_one()
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
            ]
            waiting = asyncio.create_task(migrate(database))
            await until_waited_for(connection)
            assert not waiting.done()
        await waiting
        assert limits == ["0", "0", "0"]
        assert await schema_is_current(database)
    finally:
        await database.close()


async def test_a_migration_that_conflicts_with_a_running_process_is_retried(postgres: Database) -> None:
    """Which has locked a table that the migration wants next, and wants one that this has locked."""
    world = await World.make(postgres)
    waits = text("SELECT 1 FROM pg_locks WHERE relation = 'turns'::regclass AND NOT granted")
    await world.ended()
    await run_alembic(postgres, "downgrade", "0006")
    async with asyncio.timeout(30):
        async with postgres.transaction() as running, postgres.transaction("duty") as watching:
            await running.execute(text("SELECT id FROM turns FOR UPDATE"))
            migrating = asyncio.create_task(migrate(postgres))
            while not (await watching.execute(waits)).first():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with suppress(DBAPIError):
                # One of the two is ended by the server.
                await running.execute(text("SELECT id FROM messages"))
            await running.rollback()
        await migrating
    assert await schema_is_current(postgres)


async def test_a_migration_behind_a_long_reader_does_not_block_the_service(
    postgres: Database,
) -> None:
    """Requests wait behind the migration, which waits for a reader of the table, a backup for example."""
    await World.make(postgres)
    await run_alembic(postgres, "downgrade", "0006")
    async with postgres.transaction("duty") as backup:
        await backup.execute(text("LOCK TABLE messages IN ACCESS SHARE MODE"))
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await migrate(postgres, lock_milliseconds=100)
        assert not await schema_is_current(postgres)
    await migrate(postgres)
    assert await schema_is_current(postgres)


async def test_a_failed_migration_is_rolled_back(empty: Database) -> None:
    async with exclusive(empty.url) as connection:
        await connection.execute(text("CREATE TABLE turns (id INTEGER)"))
    with pytest.raises(Exception, match="turns"):
        await migrate(empty)
    assert await tables(empty) == {"turns"}


async def test_the_expected_or_a_newer_schema_is_current(empty: Database) -> None:
    assert not await schema_is_current(empty), "empty"
    await migrate(empty)
    assert await schema_is_current(empty)
    await stamp(empty, "9999_from_a_later_release")
    assert await schema_is_current(empty), "newer is fine"


async def test_an_older_schema_is_not_current(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As seen by a later release, which knows today's newest as one of its older revisions."""
    monkeypatch.setattr("agent_gateway.store.db.migrations._revisions", lambda: ("later", OLDER | {HEAD}))
    assert not await schema_is_current(database)
    await stamp(database, "later")
    assert await schema_is_current(database)


async def test_migrate_leaves_a_newer_schema_alone(world: World) -> None:
    await stamp(world.database, "9999_from_a_later_release")
    async with world.unchanged():
        await migrate(world.database)
    assert await schema_is_current(world.database)


async def test_migrate_keeps_the_rows(world: World) -> None:
    await world.ended()
    async with world.unchanged():
        await migrate(world.database)


async def test_migrating_does_not_change_logging(empty: Database) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("agent_gateway").disabled)
    await migrate(empty)
    assert before == (root.level, root.handlers, logging.getLogger("agent_gateway").disabled)


async def test_an_unreachable_database_is_a_store_error(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'no' / 'folder.db'}", "postgresql://user@127.0.0.1:1/none"):
        database = Database(url)
        with pytest.raises(StoreUnavailable):
            await migrate(database)
        with pytest.raises(StoreUnavailable):
            await schema_is_current(database)
        await database.close()
    await drivers_threads_end()


async def test_foreign_keys_are_off_while_migrating_and_on_for_the_store(world: World) -> None:
    """SQLite's batch mode drops and renames tables; the store itself must not break references."""
    if world.database.is_sqlite:
        async with exclusive(world.database.url) as connection:
            assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 0
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await world.execute(text("DELETE FROM apps"))


def test_alembic_is_not_read_at_import() -> None:
    """It would add to the time in which a starting gateway does not answer."""
    program = "import agent_gateway.store.db.migrations, sys; sys.exit('alembic' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
