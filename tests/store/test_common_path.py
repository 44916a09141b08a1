"""The four writes of a turn: how few exchanges with the database they are, and that many turns share one."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url, text

from agent_gateway.domain.events import Endings
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Turn
from agent_gateway.errors import StoreRejected
from agent_gateway.limits import DatabaseLimits
from agent_gateway.store.db.database import Database
from agent_gateway.store.turns.intake import StartedTurn
from agent_gateway.store.turns.postgres_statements.begin import BEGIN
from agent_gateway.store.turns.postgres_statements.finish import FINISH
from agent_gateway.store.turns.postgres_statements.ownership import ARM, MARK_RUNNING
from agent_gateway.store.turns.stores import TurnStores
from tests.support.fakes.tcp_proxy import TcpProxy, postgres_proxy, through
from tests.support.store_world import World, ask, completed

pytestmark = pytest.mark.anyio

MANY = 20

Count = Callable[[], int]
"""How many exchanges there were since it was last asked."""


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[TcpProxy]:
    with postgres_proxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
async def on_postgres(proxy: TcpProxy, postgres_url: str) -> AsyncGenerator[tuple[World, Count]]:
    """Counts the round trips to the server."""
    database = Database(through(proxy, postgres_url), limits=DatabaseLimits(trusted_seconds=600.0))
    world = await World.make(database)
    # The first turn prepares the statements on both connections.
    await world.ended()
    yield world, since(lambda: proxy.round_trips)
    await database.close()


def since(total: Count) -> Count:
    before = total()

    def count() -> int:
        nonlocal before
        made, before = total() - before, total()
        return made

    return count


async def test_each_write_of_a_turn_is_one_round_trip(on_postgres: tuple[World, Count]) -> None:
    world, count = on_postgres
    turns, conversation = world.turns, None
    for number in range(3):
        # The first turn begins a conversation, the others continue it.
        asked = ask(conversation, inputs={"name": "Bob", "age": number}, key=f"key {number}")
        turn = await begun(turns, world, asked)
        assert count() == 1
        assert await turns.owned.arm(turn)
        assert count() == 1
        assert await turns.owned.mark_running(turn, RunId("run")) is False
        assert count() == 1
        assert await turns.owned.finish(turn, Endings.always(completed(snapshot="{}")))
        assert count() == 1
        conversation = turn.conversation_id


async def test_turns_that_are_due_at_once_share_one_round_trip(on_postgres: tuple[World, Count]) -> None:
    world, count = on_postgres
    turns = world.turns
    many = await asyncio.gather(*(begun(turns, world, ask()) for _ in range(MANY)))
    assert count() == 1
    assert await asyncio.gather(*map(turns.owned.arm, many)) == [True] * MANY
    assert count() == 1
    running = (turns.owned.mark_running(turn, RunId(turn.task_id)) for turn in many)
    assert await asyncio.gather(*running) == [False] * MANY
    assert count() == 1
    ends = [completed(f"answer {number}") for number in range(MANY)]
    finishing = (turns.owned.finish(turn, Endings.always(end)) for turn, end in zip(many, ends, strict=True))
    assert await asyncio.gather(*finishing) == ends
    assert count() == 1
    stored = [await turns.reader.result(turn.task_id) for turn in many]
    assert [result.answer for result in stored if result] == [end.answer for end in ends]
    assert [(await world.row(turn)).run_id for turn in many] == [turn.task_id for turn in many]


async def test_turns_that_are_due_at_once_keep_their_results(world: World) -> None:
    """On both databases: some of them are ours to write, some are not."""
    turns = world.turns
    many = await asyncio.gather(*(begun(turns, world, ask()) for _ in range(MANY)))
    lost = many[::3]
    for turn in lost:
        await world.change(turn, epoch=2)
    armed = await asyncio.gather(*map(turns.owned.arm, many))
    assert armed == [turn not in lost for turn in many]
    running = await asyncio.gather(*(turns.owned.mark_running(turn, RunId("run")) for turn in many))
    assert running == [None if turn in lost else False for turn in many]
    end = completed("yes")
    ends = await asyncio.gather(*(turns.owned.finish(turn, Endings.always(end)) for turn in many))
    assert ends == [None if turn in lost else end for turn in many]
    states = [(await world.row(turn)).state for turn in many]
    assert states == ["planned" if turn in lost else "ended" for turn in many]


async def test_a_message_that_no_row_takes_fails_alone(world: World) -> None:
    turns = world.turns
    asked = [ask(query="fine"), ask(query="not \0 fine"), ask(query="fine, too")]
    good, bad, too = await asyncio.gather(
        *(turns.intake.begin(world.ann, request) for request in asked), return_exceptions=True
    )
    assert isinstance(good, StartedTurn)
    assert isinstance(too, StartedTurn)
    if world.database.is_sqlite:
        assert isinstance(bad, StartedTurn)
    else:
        assert isinstance(bad, StoreRejected)


async def test_messages_of_one_conversation_are_never_written_together(world: World) -> None:
    conversation = (await world.ended()).conversation_id
    turns = world.turns
    results = await asyncio.gather(
        *(turns.intake.begin(world.ann, ask(conversation)) for _ in range(MANY)), return_exceptions=True
    )
    assert sum(isinstance(result, StartedTurn) for result in results) == 1


async def test_a_new_user_is_inserted_once(world: World) -> None:
    newcomer = replace(world.ann, user="a newcomer")
    turns = world.turns
    started = await asyncio.gather(*(turns.intake.begin(newcomer, ask()) for _ in range(MANY)))
    assert len(started) == MANY
    everything = await world.everything()
    assert sum("a newcomer" in row for row in everything["end_users"]) == 1


async def test_the_wait_of_a_caller_that_has_left_is_not_written(world: World) -> None:
    turns = world.turns
    leaving = asyncio.ensure_future(turns.intake.begin(world.ann, ask(query="gone")))
    staying = asyncio.ensure_future(turns.intake.begin(world.ann, ask(query="there")))
    await asyncio.sleep(0)
    leaving.cancel()
    assert isinstance(await staying, StartedTurn)
    assert leaving.cancelled()
    messages = (await world.everything())["messages"]
    assert [row for row in messages if "gone" in row] == []


@pytest.mark.parametrize("locked", ["conversations", "turns"])
async def test_a_write_waits_for_a_row_that_another_transaction_has_locked(
    postgres_url: str, locked: str
) -> None:
    """It takes the other way, and so do none of the others."""
    database = Database(postgres_url)
    world = await World.make(database)
    turns = world.turns
    held, free = await begun(turns, world, ask()), await begun(turns, world, ask())
    for turn in (held, free):
        assert await turns.owned.arm(turn)
        assert await turns.owned.mark_running(turn, RunId("run")) is False
    ids = {"conversations": held.conversation_id, "turns": held.task_id}
    async with database.transaction() as connection:
        await connection.execute(
            text(f"SELECT 1 FROM {locked} WHERE id = :id FOR UPDATE"), {"id": ids[locked]}
        )
        first, second = (
            asyncio.ensure_future(turns.owned.finish(turn, Endings.always(completed())))
            for turn in (held, free)
        )
        assert await second
        assert not first.done()
    assert await first
    await database.close()


async def begun(turns: TurnStores, world: World, request: Any) -> Turn:
    started = await turns.intake.begin(world.ann, request)
    assert isinstance(started, StartedTurn)
    return started.turn


SIZE = 3_000

FILL = f"""
INSERT INTO end_users (id, app_id, external_id, created_at)
    SELECT gen_random_uuid(), a.id, 'user ' || n, now() FROM apps a, generate_series(1, {SIZE}) n;
INSERT INTO conversations (id, app_id, app_version_id, end_user_id, last_seq, created_at, updated_at)
    SELECT gen_random_uuid(), u.app_id, a.version_id, u.id, 1, now(), now()
    FROM end_users u JOIN apps a ON a.id = u.app_id;
INSERT INTO messages (id, conversation_id, seq, marks, created_at)
    SELECT gen_random_uuid(), id, 1, '', now() FROM conversations;
INSERT INTO turns (id, app_version_id, conversation_id, message_id, seq, state, outcome, epoch, adoptions,
                   deadline_at, fold_version, created_at)
    SELECT gen_random_uuid(), c.app_version_id, c.id, m.id, 1, 'ended', 'completed', 1, 0, now(), 1, now()
    FROM messages m JOIN conversations c ON c.id = m.conversation_id;
INSERT INTO snapshots (conversation_id, seq, data, updated_at) SELECT id, 1, '{{}}', now() FROM conversations;
INSERT INTO idempotency (app_id, user_id, key, turn_id, body_hash, created_at)
    SELECT u.app_id, u.external_id, 'key', u.id, '', now() FROM end_users u;
INSERT INTO forms (id, conversation_id, turn_id, message_id, token, state, expires_at, created_at)
    SELECT gen_random_uuid(), conversation_id, id, message_id, id, 'open', now(), now() FROM turns;
ANALYZE;
"""


INDEXES = {
    "begin": (
        BEGIN,
        {
            "pk_conversations",
            "pk_snapshots",
            "uq_end_users_app_id_external_id",
            "uq_forms_open",
            "uq_turns_active",
        },
    ),
    "arm": (ARM, {"pk_turns"}),
    "running": (MARK_RUNNING, {"pk_turns"}),
    "finish": (FINISH, {"ix_turns_queued", "pk_conversations", "pk_messages", "pk_turns"}),
}


async def test_no_write_of_a_turn_reads_a_whole_table(postgres_url: str) -> None:
    """Whatever the size of the tables: the plans that the server uses for all later executions."""
    await World.make(database := Database(postgres_url))
    await database.close()
    url = make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute(FILL)
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for name, (statement, indexes) in INDEXES.items():
            await connection.execute(f"PREPARE {name}_it AS {statement.text}")
            nulls = ", ".join(["NULL"] * statement.parameters)
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {name}_it({nulls})"))
            assert "Seq Scan on" not in plan, plan
            assert set(re.findall(r" using (\w+) on", plan)) == indexes, plan
    finally:
        await connection.close()


async def test_on_sqlite_the_writes_of_one_moment_share_a_commit(shared: Database) -> None:
    commits: list[str] = []

    def count(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    await shared.write(count)
    commits.clear()
    names = ["one", "two", "three", "four"]
    assert await asyncio.gather(*(shared.write(insert(name)) for name in names)) == names
    # The first one was alone; the others came while it was on its way.
    assert len(commits) == 2
    assert await names_in(shared) == names


@pytest.mark.parametrize("all_is_gone", [False, True], ids=["an error", "a full disk"])
async def test_on_sqlite_a_write_that_fails_takes_back_nothing_of_others(
    shared: Database, all_is_gone: bool
) -> None:
    """A disk that is full makes the database take back the whole transaction."""

    def fail(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO seen VALUES ('two')")
        if all_is_gone:
            connection.rollback()
        raise ValueError("no")

    results = await asyncio.gather(
        *(shared.write(work) for work in (insert("one"), fail, insert("three"), insert("four"))),
        return_exceptions=True,
    )
    assert list(map(str, results)) == ["one", "no", "three", "four"]
    assert await names_in(shared) == ["one", "three", "four"]


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncGenerator[Database]:
    """With one table."""
    database = Database(f"sqlite:///{tmp_path / 'shared.db'}")
    await database.write(lambda connection: connection.execute("CREATE TABLE seen (name TEXT)").fetchone())
    yield database
    await database.close()


def insert(name: str) -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO seen VALUES (?)", (name,))
        return name

    return work


async def names_in(database: Database) -> list[str]:
    return await database.write(
        lambda connection: [name for (name,) in connection.execute("SELECT name FROM seen")]
    )
