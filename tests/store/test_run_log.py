"""The log of the embedded agent's runs: what is appended, who may append, who may take over (R19)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import func, select, update

from agent_gateway.domain.ids import RunId, new_id
from agent_gateway.domain.run_log import Batch, HeldRun, NewRun
from agent_gateway.domain.run_log import RunStatus as Status
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import run_events, runs
from agent_gateway.store.runs.log import StoredRunLog
from agent_gateway.store.runs.removal import count_old_runs, delete_runs, kept_seconds
from tests.support.run_log import open_log

pytestmark = pytest.mark.anyio

REQUEST = b'{"with": "a key of a provider"}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def log(database_url: str) -> AsyncGenerator[StoredRunLog]:
    async with open_log(database_url) as opened:
        yield opened


@asynccontextmanager
async def logs(url: str, count: int) -> AsyncGenerator[list[StoredRunLog]]:
    """Those of several processes."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_log(url)) for _ in range(count)]


async def begin(
    log: StoredRunLog,
    key: str | None = None,
    request: bytes | None = None,
    conversation: str | None = None,
) -> RunId:
    return await log.begin(NewRun(RunId(new_id()), key, conversation, request, b"started"))


def batch(
    run_id: RunId,
    first: int,
    *events: bytes,
    epoch: int = 1,
    status: Status = "running",
    drop_request: bool = False,
) -> Batch:
    error = "why" if status == "failed" else None
    data = b"\n".join(events)
    return Batch(run_id, epoch, first, len(events), data, status, error, drop_request=drop_request)


async def events(log: StoredRunLog, run_id: RunId, after: int = 0) -> list[bytes]:
    """All of a run's events after those of whole batches before this number."""
    reading = await log.read(run_id, after)
    assert reading is not None
    return [event for piece in reading.pieces for event in piece.split(b"\n")]


async def expire(database: Database, run_id: RunId) -> None:
    async with database.transaction() as connection:
        await connection.execute(update(runs).where(runs.c.id == run_id).values(lease_until=now_plus(-0.1)))


async def test_a_run_is_read_as_it_was_written(log: StoredRunLog) -> None:
    run_id = await begin(log)
    assert await log.append([batch(run_id, 2, b"a", b"b")]) == {run_id}
    assert await log.append([batch(run_id, 4, b"c")]) == {run_id}
    assert await events(log, run_id) == [b"started", b"a", b"b", b"c"]
    assert await events(log, run_id, after=1) == [b"a", b"b", b"c"]
    assert await events(log, run_id, after=2) == [b"a", b"b", b"c"], "a batch is read whole"
    assert await events(log, run_id, after=3) == [b"c"]
    assert await events(log, run_id, after=4) == []
    reading = await log.read(run_id, 4)
    assert reading is not None
    assert (reading.status, reading.error, reading.epoch, reading.lost) == ("running", None, 1, False)
    await log.append([batch(run_id, 5, b"end", status="failed")])
    reading = await log.read(run_id, 4)
    assert reading is not None
    assert (reading.status, reading.error, list(reading.pieces)) == ("failed", "why", [b"end"])


async def test_an_unknown_run_is_none(log: StoredRunLog) -> None:
    assert await log.read(new_id(), 0) is None
    assert await log.read("nope", 0) is None
    assert await log.append([batch(RunId(new_id()), 2, b"a")]) == set()


async def test_runs_that_begin_at_once_are_all_begun(log: StoredRunLog) -> None:
    made = await asyncio.gather(*(begin(log) for _ in range(20)))
    assert len(set(made)) == 20
    assert [await events(log, run_id) for run_id in made] == [[b"started"]] * 20


async def test_a_repeated_idempotency_key_gets_the_first_run(log: StoredRunLog) -> None:
    first = await begin(log, key="mine")
    others = await asyncio.gather(*(begin(log, key="mine") for _ in range(5)), begin(log, key="other"))
    assert others[:5] == [first] * 5
    assert others[5] != first
    assert await events(log, first) == [b"started"]


async def test_a_begin_or_an_append_whose_answer_was_lost_is_repeated_without_effect(
    log: StoredRunLog,
) -> None:
    new = NewRun(RunId(new_id()), None, None, None, b"started")
    assert [await log.begin(new) for _ in range(2)] == [new.id, new.id]
    for _ in range(2):
        assert await log.append([batch(new.id, 2, b"a")]) == {new.id}
    for _ in range(2):
        assert await log.append([batch(new.id, 3, b"end", status="succeeded")]) == {new.id}
    assert await events(log, new.id) == [b"started", b"a", b"end"]


async def test_an_append_under_another_epoch_or_of_another_process_changes_nothing(
    database_url: str,
) -> None:
    async with logs(database_url, 2) as (ours, theirs):
        run_id, fine = await begin(ours), await begin(ours)
        late = [batch(run_id, 2, b"late", epoch=2, status="failed"), batch(fine, 2, b"a")]
        assert await ours.append(late) == {fine}
        assert await theirs.append([batch(run_id, 2, b"late", status="failed")]) == set()
        assert await events(ours, run_id) == [b"started"]
        assert await events(ours, fine) == [b"started", b"a"]


async def test_nothing_is_appended_after_the_end(log: StoredRunLog) -> None:
    run_id = await begin(log)
    await log.append([batch(run_id, 2, b"end", status="cancelled")])
    await log.append([batch(run_id, 3, b"late", status="failed")])
    assert await events(log, run_id) == [b"started", b"end"]
    reading = await log.read(run_id, 0)
    assert reading is not None
    assert (reading.status, reading.error) == ("cancelled", None)


async def test_one_of_many_takes_a_run_over_whose_owner_is_gone(postgres_url: str) -> None:
    async with logs(postgres_url, 6) as (dead, *others):
        run_id = await begin(dead, request=REQUEST)
        assert await others[0].take(run_id, 1) is None, "its owner lives"
        await expire(dead._database, run_id)
        reading = await others[0].read(run_id, 0)
        assert reading is not None
        assert reading.lost
        taken = await asyncio.gather(*(log.take(run_id, 1) for log in others))
        [winner] = [number for number, one in enumerate(taken) if one is not None]
        assert taken[winner] == (2, REQUEST, None)
        # The former owner comes back.
        assert await dead.renew([HeldRun(run_id, 1)]) == set()
        assert await dead.append([batch(run_id, 2, b"late", status="succeeded")]) == set()
        assert await others[winner].append([batch(run_id, 2, b"end", epoch=2, status="failed")]) == {run_id}
        assert await events(dead, run_id) == [b"started", b"end"]


async def test_a_renewed_lease_does_not_run_out(postgres_url: str) -> None:
    async with logs(postgres_url, 2) as (ours, theirs):
        run_id, ended = await begin(ours), await begin(ours)
        await ours.append([batch(ended, 2, b"end", status="succeeded")])
        await expire(ours._database, run_id)
        held = [HeldRun(run_id, 1), HeldRun(ended, 1)]
        assert await theirs.renew(held) == set()
        assert await ours.renew(held) == {run_id}
        assert await theirs.take(run_id, 1) is None


async def test_what_an_older_process_left_in_its_file_is_lost_at_once(sqlite_only: str) -> None:
    async with open_log(sqlite_only) as dead:
        run_id = await begin(dead)
    async with open_log(sqlite_only) as log:
        own = await begin(log)
        readings = [await log.read(one, 0) for one in (run_id, own)]
        assert [reading.lost for reading in readings if reading is not None] == [True, False]
        assert await log.take(own, 1) is None
        assert await log.take(run_id, 1) == (2, None, None)


async def test_a_request_is_kept_only_while_its_run_can_be_started_again(log: StoredRunLog) -> None:
    async def stored() -> dict[str, bytes | None]:
        async with log._database.reading() as session:
            return {row.id: row.request for row in await session.execute(select(runs.c.id, runs.c.request))}

    begun, told, ended, plain = [await begin(log, request=REQUEST) for _ in range(3)] + [await begin(log)]
    await log.append(
        [
            batch(begun, 2, b"thinks"),
            batch(told, 2, b"text", drop_request=True),
            batch(ended, 2, b"end", status="succeeded"),
        ]
    )
    assert await stored() == {begun: REQUEST, told: None, ended: None, plain: None}
    assert await events(log, told) == [b"started", b"text"]


async def test_a_wish_to_cancel_reaches_the_owner_alone(postgres_url: str) -> None:
    async with logs(postgres_url, 2) as (ours, theirs):
        run_id, other = await begin(ours), await begin(ours)
        assert await ours.asked_to_cancel() == {}
        for why in (b"first", b"second"):
            await theirs.ask_to_cancel(run_id, why)
        assert (await ours.asked_to_cancel(), await theirs.asked_to_cancel()) == ({run_id: b"first"}, {})
        await ours.append([batch(run_id, 2, b"end", status="cancelled")])
        assert await ours.asked_to_cancel() == {}
        assert await events(ours, other) == [b"started"]


async def test_a_poll_reads_many_runs_each_from_its_own_place(postgres_url: str) -> None:
    async with logs(postgres_url, 2) as (ours, theirs):
        made = [await begin(ours) for _ in range(3)]
        for first in (2, 4):
            await ours.append([batch(run_id, first, b"a%d" % first, b"b") for run_id in made])
        ended = [batch(made[2], 6, b"end", status="succeeded")]
        await ours.append(ended)
        places = list(zip(made, (0, 3, 5), strict=True))
        readings = await theirs.poll([*places, (RunId(new_id()), 0)])
        assert {run_id: reading.pieces for run_id, reading in readings.items()} == {
            made[0]: [b"started", b"a2\nb", b"a4\nb"],
            made[1]: [b"a4\nb"],
            made[2]: [b"end"],
        }
        assert [readings[run_id].status for run_id in made] == ["running", "running", "succeeded"]
        assert not any(reading.lost for reading in readings.values())


async def test_long_runs_are_read_in_parts(log: StoredRunLog) -> None:
    run_id = await begin(log)
    for number in range(2, 152):
        await log.append([batch(run_id, number, b"%d" % number)])
    read: list[bytes] = []
    while part := await events(log, run_id, len(read)):
        read += part
    assert read == [b"started", *(b"%d" % number for number in range(2, 152))]


async def test_runs_are_deleted_some_time_after_their_end(log: StoredRunLog) -> None:
    database = log._database
    kept, old, forgotten, new = [await begin(log) for _ in range(4)]
    await log.append([batch(one, 2, b"end", status="succeeded") for one in (old, new)])
    async with database.transaction() as connection:
        ago = now_plus(-kept_seconds(60.0) - 1)
        await connection.execute(update(runs).where(runs.c.id == old).values(ended_at=ago))
        await connection.execute(update(runs).where(runs.c.id == forgotten).values(lease_until=ago))
    assert await count_old_runs(database, kept_seconds(60.0)) == 1
    assert await log.prune() == 2
    assert await log.prune() == 0
    readings = [await log.read(one, 0) for one in (kept, old, forgotten, new)]
    assert [reading is not None for reading in readings] == [True, False, False, True]
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(run_events)) == 3


async def test_a_run_is_kept_for_as_long_as_its_turn_may_take() -> None:
    assert kept_seconds(60.0) == 3600.0
    assert kept_seconds(7200.0) == 7200.0


async def test_the_runs_of_a_removed_conversation_are_deleted_and_fenced(log: StoredRunLog) -> None:
    run_id, other, _ = (
        await begin(log, conversation="c"),
        await begin(log, conversation="d"),
        await begin(log),
    )
    async with log._database.transaction() as connection:
        assert await delete_runs(connection, "c") == 1
    assert await log.append([batch(run_id, 2, b"a"), batch(other, 2, b"a")]) == {other}
    assert await log.read(run_id, 0) is None
    async with log._database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(run_events)) == 3
