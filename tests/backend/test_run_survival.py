"""Runs of several processes on one log: who drives a run when its process is gone, and with what (R19).

Processes are `Runs` on one Postgres; one dies when all that it does is cut off.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from agent_gateway.backend.embedded.runs import Emit, Execute, RunFailed
from agent_gateway.backend.embedded.runs import registry as registry_module
from agent_gateway.backend.embedded.runs.registry import MAX_EPOCH, Runs
from agent_gateway.backend.embedded.runs.run import LoggedEvent, Run
from agent_gateway.backend.protocol import TERMINAL, Composition, CreateRunRequest, Layer
from agent_gateway.domain.run_log import Batch
from agent_gateway.errors import StoreRejected, StoreUnavailable
from agent_gateway.store.runs.log import StoredRunLog
from tests.support.run_log import open_log

pytestmark = pytest.mark.anyio

LIMIT = 30.0
LEASE_SECONDS = 1.0
THINKS = (b'{"event_kind":"part_delta","delta":{"part_delta_kind":"thinking"}}', b"null")
SAYS = (b'{"event_kind":"part_delta"}', b'"text"')
CALLS = (b'{"event_kind":"part_start","part":{"part_kind":"tool-call"}}', b"null")
DONE = b'{"output":"done"}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(policy: str = "fail", key: str | None = None) -> CreateRunRequest:
    layers = [
        Layer("user", "plain.prompt", config={"user": "hi"}),
        Layer("llm", "llm", config={"on_process_lost": policy}),
    ]
    return CreateRunRequest(Composition(1, layers), idempotency_key=key)


class Process:
    """The runs of one process."""

    def __init__(self, log: StoredRunLog, execute: Execute) -> None:
        self.log = log
        self.runs = Runs(execute, log, stop_seconds=1.0)

    async def die(self) -> None:
        """As kill -9: nothing of it goes on."""
        runs = self.runs
        tasks = [one._task for one in (runs._appender, runs._keeper, runs._follower)]
        tasks += [run.task for run in runs._runs.values()]
        for run in runs._runs.values():
            run.epoch = 0
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.wait([task for task in tasks if task is not None])
        runs._driven.clear()


@asynccontextmanager
async def processes(url: str, *executes: Execute) -> AsyncGenerator[Sequence[Process]]:
    async with AsyncExitStack() as stack:
        made = []
        for execute in executes:
            log = await stack.enter_async_context(open_log(url, lease_seconds=LEASE_SECONDS))
            made.append(Process(log, execute))
            stack.push_async_callback(made[-1].runs.aclose)
        await stack.enter_async_context(asyncio.timeout(LIMIT))
        yield made


def saying(*events: tuple[bytes, bytes], then: asyncio.Event | None = None) -> Execute:
    """An agent that says this and is done; with `then`, it waits for that first."""

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        for event in events:
            await emit(*event)
        if then is not None:
            await then.wait()
        return DONE

    return execute


def silent(*events: tuple[bytes, bytes]) -> Execute:
    """An agent that says this and then nothing."""

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        for event in events:
            await emit(*event)
        await asyncio.Event().wait()
        return DONE

    return execute


async def told_by(process: Process, run_id: str) -> list[str]:
    """The types of all events of a run, up to its end."""
    heard: list[LoggedEvent] = []
    async with process.runs.opened(run_id) as run:
        await run.read(0, heard.extend)
    assert [event.number for event in heard] == list(range(1, len(heard) + 1))
    assert [event.type in TERMINAL for event in heard].index(True) == len(heard) - 1
    return [event.type for event in heard]


async def once(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110 - it is looked at from outside
        await asyncio.sleep(0.01)


async def until(run: Run, count: int) -> None:
    while len(run.events) < count:
        await run.next_batch(len(run.events))


@pytest.mark.parametrize(
    ("policy", "before", "is_restarted"),
    [
        ("restart", [], True),
        ("restart", [THINKS, THINKS], True),
        ("restart", [THINKS, CALLS], False),
        ("restart", [SAYS], False),
        ("fail", [], False),
        ("fail", [THINKS], False),
    ],
)
async def test_a_run_is_started_again_only_before_its_first_text_or_tool(
    postgres_url: str, policy: str, before: list[tuple[bytes, bytes]], is_restarted: bool
) -> None:
    async with processes(postgres_url, silent(*before), saying(SAYS)) as (dead, other):
        run = await dead.runs.create(request(policy))
        await until(run, 1 + len(before))
        await dead.die()
        told = await told_by(other, run.id)
    event = "pydantic_ai_event"
    rest = [event, "run_succeeded"] if is_restarted else ["run_failed"]
    assert told == ["run_started", *[event] * len(before), *rest]


async def test_a_run_that_ends_its_processes_is_not_started_for_ever(postgres_url: str) -> None:
    async with processes(postgres_url, *[silent()] * (MAX_EPOCH + 1)) as fleet:
        run_id = (await fleet[0].runs.create(request("restart"))).id
        for dying, process in itertools.pairwise(fleet):
            await dying.die()
            async with process.runs.opened(run_id) as run:
                await once(lambda run=run: run.status != "running" or run.epoch)  # type: ignore[misc]
        assert await told_by(fleet[-1], run_id) == ["run_started", "run_failed"]


async def test_a_tool_waits_until_its_call_is_logged(postgres_url: str) -> None:
    """Otherwise a run could be started again although a tool had run."""
    tools: list[str] = []

    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        await emit(*CALLS)
        tools.append("ran")
        return DONE

    async with processes(postgres_url, execute, saying(SAYS)) as (one, two):
        writes, release = refusing(one.log)
        run = await one.runs.create(request("restart"))
        await writes.wait()
        assert tools == []
        release()
        assert await told_by(two, run.id) == ["run_started", "pydantic_ai_event", "run_succeeded"]
        assert tools == ["ran"]


def refusing(
    log: StoredRunLog, error: type[Exception] = StoreUnavailable
) -> tuple[asyncio.Event, Callable[[], None]]:
    """From now on no append gets through. Returns what is set by the first try, and what ends it."""
    tried, append = asyncio.Event(), log.append

    async def refuse(_: Sequence[Batch]) -> set[object]:
        tried.set()
        raise error("away")

    log.append = refuse  # type: ignore[method-assign,assignment]

    def release() -> None:
        log.append = append  # type: ignore[method-assign]

    return tried, release


async def test_readers_get_nothing_that_is_not_logged(postgres_url: str) -> None:
    """While the log cannot be written the run goes on, and what it said comes when it is back."""
    async with processes(postgres_url, saying(THINKS, SAYS), silent()) as (one, _):
        tried, release = refusing(one.log)
        run = await one.runs.create(request())
        heard: list[LoggedEvent] = []
        reading = asyncio.ensure_future(run.read(0, heard.extend))
        await tried.wait()
        assert [event.type for event in heard] == ["run_started"]
        release()
        await reading
        assert [event.type for event in heard][-1] == "run_succeeded"
        assert len(heard) == 4


async def test_a_run_that_cannot_be_logged_for_long_ends_and_is_ended_by_who_finds_it(
    postgres_url: str,
) -> None:
    async with processes(postgres_url, silent(SAYS), silent()) as (one, two):
        one.runs._appender._hold_seconds = 0.0
        refusing(one.log)
        run = await one.runs.create(request())
        assert run.task is not None
        await asyncio.wait({run.task})
        assert run.task.cancelled() or run.task.exception() is not None
        assert await told_by(two, run.id) == ["run_started", "run_failed"]


async def test_a_batch_that_the_log_refuses_ends_its_run_alone(postgres_url: str) -> None:
    async with processes(postgres_url, silent(SAYS), silent()) as (one, two):
        tried, release = refusing(one.log, StoreRejected)
        run = await one.runs.create(request())
        await tried.wait()
        assert run.task is not None
        await asyncio.wait({run.task})
        release()
        fine = await one.runs.create(request())
        await until(fine, 2)
        assert await told_by(two, run.id) == ["run_started", "run_failed"]


async def test_leases_are_kept_while_a_run_is_silent(postgres_url: str) -> None:
    done = asyncio.Event()
    async with processes(postgres_url, saying(then=done), silent()) as (one, two):
        run = await one.runs.create(request())
        reading = asyncio.ensure_future(told_by(two, run.id))
        renewals = 0
        renew = one.log.renew

        async def counted(*given: object) -> set[object]:
            nonlocal renewals
            renewals += 1
            if renewals == 6:
                done.set()
            return await renew(*given)  # type: ignore[arg-type,return-value]

        one.log.renew = counted  # type: ignore[method-assign,assignment]
        # Two leases later it is still its own.
        assert await reading == ["run_started", "run_succeeded"]


async def test_a_process_that_could_not_reach_the_log_takes_nothing_for_a_while(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others could not renew their leases either, and get the time for it."""
    async with processes(postgres_url, silent(), silent()) as (dead, other):
        run = await dead.runs.create(request())
        await dead.die()
        other.runs._doubt()
        until_then = other.runs._trusts_at
        taken: list[float] = []
        take = other.log.take

        async def noted(*given: object) -> object:
            taken.append(asyncio.get_running_loop().time())
            return await take(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(other.log, "take", noted)
        assert await told_by(other, run.id) == ["run_started", "run_failed"]
        assert len(taken) == 1
        assert taken[0] >= until_then


async def test_nothing_is_at_work_when_nothing_runs_and_nobody_reads(postgres_url: str) -> None:
    async with processes(postgres_url, saying(SAYS), silent()) as (one, two):
        run = await one.runs.create(request())
        await told_by(two, run.id)
        at_work = [one.runs._appender, one.runs._keeper, two.runs._follower, two.runs._keeper]
        await once(lambda: all(part._task is None for part in at_work))
        assert (one.runs._driven, two.runs._runs) == ({}, {})


async def test_readers_of_one_run_share_what_is_read(postgres_url: str) -> None:
    done = asyncio.Event()
    async with processes(postgres_url, saying(SAYS, then=done), silent()) as (one, two):
        made = [await one.runs.create(request()) for _ in range(3)]
        polls: list[int] = []
        poll = two.log.poll

        async def counted(wanted: Sequence[object]) -> object:
            polls.append(len(wanted))
            return await poll(wanted)  # type: ignore[arg-type]

        two.log.poll = counted  # type: ignore[method-assign,assignment]
        readers = [asyncio.ensure_future(told_by(two, run.id)) for run in made for _ in range(10)]
        await once(lambda: 3 in polls)
        done.set()
        assert await asyncio.gather(*readers) == [["run_started", "pydantic_ai_event", "run_succeeded"]] * 30
        assert max(polls) == 3


async def test_a_failure_of_a_run_is_read_elsewhere(postgres_url: str) -> None:
    async def execute(_: CreateRunRequest, emit: Emit) -> bytes:
        raise RunFailed("no such \x00 thing", "ModelNotFoundError")

    async with processes(postgres_url, execute, silent()) as (one, two):
        run = await one.runs.create(request())
        assert await told_by(two, run.id) == ["run_started", "run_failed"]
        async with two.runs.opened(run.id) as read:
            assert (read.status, read.error) == ("failed", "no such \ufffd thing")


async def test_old_runs_are_removed_by_a_process_that_only_runs_agents(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "TIDY_SECONDS", 0.01)
    pruned = asyncio.Event()
    async with processes(postgres_url, silent()) as [one]:

        async def prune() -> int:
            pruned.set()
            return 1

        one.log.prune = prune  # type: ignore[method-assign]
        async with one.runs.tidying():
            await pruned.wait()
