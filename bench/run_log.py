"""What the run log costs: events of the embedded agent per second into Postgres, beside two yardsticks.

`python -m bench.run_log` prints it. The yardsticks of the same run are COPY, one row per event, by the same
driver; and the same runs with a log that keeps nothing. Postgres has its own defaults: what is committed is
on the disk.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from agent_gateway.backend.embedded.runs import Emit
from agent_gateway.backend.embedded.runs.registry import Runs
from agent_gateway.backend.embedded.runs.run import LoggedEvent
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer
from agent_gateway.domain.ids import RunId, new_id
from agent_gateway.domain.run_log import Batch, HeldRun, NewRun, Reading, TakenRun
from agent_gateway.store.db.database import Database
from agent_gateway.store.runs.log import StoredRunLog
from bench.gateway import migrate
from bench.machine import Cores, pinned
from bench.postgres import Postgres

RUNS: Final = 50
EVENTS: Final = 2000
STREAMS: Final = 500
PACE_SECONDS: Final = 0.025
PACED_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 5.0
DATA: Final = (
    b'{"index":0,"delta":{"content_delta":"word ","provider_name":null,"provider_details":null,'
    b'"part_delta_kind":"text"},"event_kind":"part_delta"}'
)
REQUEST: Final = CreateRunRequest(Composition(1, [Layer("user", "plain.prompt", config={"user": "hi"})]))


class NoLog:
    """A log that keeps nothing; see RunLog."""

    shared = False
    lease_seconds = 8.0
    clock = staticmethod(time.time)

    async def begin(self, new: NewRun) -> RunId:
        """Keep nothing."""
        return new.id

    async def append(self, batches: Sequence[Batch]) -> set[RunId]:
        """Keep nothing."""
        return {batch.run_id for batch in batches}

    async def renew(self, held: Sequence[HeldRun]) -> set[RunId]:
        """Keep nothing."""
        return {run.id for run in held}

    async def asked_to_cancel(self) -> dict[RunId, bytes]:
        """Keep nothing."""
        return {}

    async def ask_to_cancel(self, run_id: RunId, why: bytes) -> None:
        """Keep nothing."""
        raise NotImplementedError

    async def read(self, run_id: str, after: int) -> Reading | None:
        """Keep nothing."""
        raise NotImplementedError

    async def poll(self, wanted: Sequence[tuple[RunId, int]]) -> dict[RunId, Reading]:
        """Keep nothing."""
        raise NotImplementedError

    async def take(self, run_id: RunId, epoch: int) -> TakenRun | None:
        """Keep nothing."""
        raise NotImplementedError

    async def prune(self) -> int:
        """Keep nothing."""
        return 0


async def saturated(log: Any) -> tuple[float, float]:
    """As fast as it goes, with one reader for each run: events per second, CPU of this process in µs."""

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        for number in range(EVENTS):
            emit(DATA, b'"word "')
            if number % 10 == 9:
                # A model's client reads many events from its socket at once.
                await asyncio.sleep(0)
        return b'{"output":""}'

    runs = Runs(execute, log, keep_bytes=0)
    heard = 0

    def take(events: Sequence[LoggedEvent]) -> None:
        nonlocal heard
        heard += len(events)

    began, cpu = time.perf_counter(), time.process_time()
    made = [await runs.create(REQUEST) for _ in range(RUNS)]
    await asyncio.gather(*(run.read(0, take) for run in made))
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    await runs.aclose()
    assert heard == RUNS * (EVENTS + 2)
    return heard / seconds, used / heard * 1e6


async def paced(log: Any) -> tuple[float, float, float, float]:
    """STREAMS runs that say something each PACE_SECONDS.

    Events per second, latency until a reader has them (median and p99 in ms), CPU of each in us.
    """
    latencies: list[float] = []
    go, over = asyncio.Event(), 0.0

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        await go.wait()
        await asyncio.sleep(PACE_SECONDS * random.random())
        while time.perf_counter() < over:
            emit(b'{"at":%f,"more":' % time.perf_counter() + DATA + b"}", b'"word "')
            await asyncio.sleep(PACE_SECONDS)
        return b'{"output":""}'

    def take(events: Sequence[LoggedEvent]) -> None:
        now = time.perf_counter()
        said = [event.body.split(b'"at":')[1].split(b",")[0] for event in events if b'"at":' in event.body]
        latencies.extend(now - float(at) for at in said)

    runs = Runs(execute, log, keep_bytes=0)
    made = await asyncio.gather(*(runs.create(REQUEST) for _ in range(STREAMS)))
    readers = [asyncio.ensure_future(run.read(0, take)) for run in made]
    await asyncio.sleep(1.0)
    began, cpu = time.perf_counter(), time.process_time()
    over = began + PACED_SECONDS
    go.set()
    await asyncio.gather(*readers)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    await runs.aclose()
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / seconds, cuts[49] * 1e3, cuts[98] * 1e3, used / len(latencies) * 1e6


async def copied(url: str) -> float:
    """Events per second by COPY, in one transaction for each thousand."""
    connection: Any = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE copied (run_id uuid, number integer, data bytea)")
    body = b'{"id":"1796124670017-1234","run_id":"01a2315f-7842-7045-889a-7ab15afe21bc","created_at":'
    body += b'"2026-12-01T11:31:10.017127Z","type":"pydantic_ai_event","data":' + DATA
    body += b',"agent_message_delta":"word "}'
    rows = [("01a2315f-7842-7045-889a-7ab15afe21bc", number, body) for number in range(1000)]
    began = time.perf_counter()
    for _ in range(RUNS * EVENTS // 1000):
        await connection.copy_records_to_table("copied", records=rows)
    seconds = time.perf_counter() - began
    await connection.close()
    return RUNS * EVENTS / seconds


async def idle(url: str, log: Any) -> tuple[int, float]:
    """When all runs have ended and nobody reads: connections that sent something in a while, CPU in ms."""

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        emit(DATA, b'"word "')
        return b'{"output":""}'

    runs = Runs(execute, log)
    made = [await runs.create(REQUEST) for _ in range(RUNS)]
    await asyncio.gather(*(run.ended() for run in made))
    await asyncio.sleep(2.0)
    connection: Any = await asyncpg.connect(url)
    newest = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query_start > $1"
    since, cpu = await connection.fetchval("SELECT clock_timestamp()"), time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    used = time.process_time() - cpu
    statements = await connection.fetchval(newest, since)
    await connection.close()
    await runs.aclose()
    return int(statements), used * 1e3


async def measure(url: str) -> None:
    """Print all of it."""
    database = Database(url)
    await database.hold()
    await database.now()
    log = StoredRunLog(database, new_id(), 8.0, 3600.0)
    await saturated(log)  # warms
    rates = [(await saturated(log), await saturated(NoLog()), await copied_once(url)) for _ in range(3)]
    (rate, cpu), (none, none_cpu), copy = rates[1]
    rate, cpu = (statistics.median(one[0][part] for one in rates) for part in (0, 1))
    none, none_cpu = (statistics.median(one[1][part] for one in rates) for part in (0, 1))
    copy = statistics.median(one[2] for one in rates)
    of_copy = statistics.median(one[0][0] / one[2] for one in rates)
    of_none = statistics.median(one[0][0] / one[1][0] for one in rates)
    print(f"saturated: {rate:,.0f} events/s, {cpu:.1f} us of CPU each, {RUNS} runs")
    print(f"  COPY, one row each:  {copy:,.0f} events/s; ratio {of_copy:.2f}")
    print(f"  a log that keeps nothing: {none:,.0f} events/s, {none_cpu:.1f} us each; ratio {of_none:.2f}")
    for name, one in (("Postgres", log), ("a log that keeps nothing", NoLog())):
        pace, p50, p99, used = await paced(one)
        print(
            f"paced, {name}: {pace:,.0f} events/s of {STREAMS} runs, {p50:.1f} / {p99:.1f} ms, {used:.1f} us"
        )
    statements, used = await idle(url, log)
    print(f"idle: {statements} connections sent something, {used:.1f} ms of CPU in {IDLE_SECONDS:.0f} s")
    connection: Any = await asyncpg.connect(url)
    size = "SELECT count(*), sum(count), pg_total_relation_size('run_events') FROM run_events"
    rows, events, bytes_ = await connection.fetchrow(size)
    print(f"stored: {events:,} events in {rows:,} rows, {bytes_ / events:.0f} bytes each")
    await connection.close()
    await database.close()


async def copied_once(url: str) -> float:
    """`copied`, into a new table."""
    try:
        return await copied(url)
    finally:
        connection: Any = await asyncpg.connect(url)
        await connection.execute("DROP TABLE copied")
        await connection.close()


def main() -> None:
    """Measure on a new server."""
    cores = Cores.of_this_machine()
    with tempfile.TemporaryDirectory() as folder, Postgres(cores.database) as postgres:
        url = postgres.create_database()
        migrate(url, Path(folder))
        with pinned(cores.server):
            asyncio.run(measure(url))


if __name__ == "__main__":
    main()
