"""Crowds: a rolling deploy under hundreds of live streams, and a thousand readers that return at once."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import pytest

from tests.support.event_source import EventSource
from tests.support.fakes.script import Gate, Step, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, die
from tests.support.gateway_server import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STREAMS = 200
READERS = 1_000
TURNS = 10
LONG_LEASE = 60.0
"""Nobody waits for it in a deploy: what is released is adopted at once."""
BOUND = 60.0


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """A reader, the gateway it reads and the backend behind that are all ends in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8_192, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(3 * BOUND)
    ) as session:
        yield session


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, BOUND)


async def test_a_rolling_deploy_under_hundreds_of_streams_loses_nothing(
    fleet: Fleet, fake: ScriptedBackend, session: aiohttp.ClientSession, user: str
) -> None:
    """Clients that reconnect as EventSource does see every character once, and no error."""
    gates = [Gate() for _ in range(4)]
    steps: list[Step] = list(said("0"))
    for number, each in enumerate(gates, start=1):
        steps += [each, delta(str(number))]
    fake.script = script(*steps, succeed())
    servers = [await asyncio.to_thread(fleet.start, lease_seconds=LONG_LEASE) for _ in range(2)]
    clients = [EventSource(session, lambda: servers[0].url, f"{user}-{n}") for n in range(STREAMS)]
    slots = asyncio.Semaphore(20)

    async def live(client: EventSource) -> None:
        async with slots:
            task_id = await client.begin()
        await client.follow(task_id)

    async with asyncio.timeout(3 * BOUND), asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(live(client))
        for number, each in enumerate(gates):
            seen = str(number)
            await until(lambda seen=seen: all(client.text.endswith(seen) for client in clients))
            if number < 3:
                servers.append(await asyncio.to_thread(fleet.start, lease_seconds=LONG_LEASE))
                servers.pop(0).begin_stop(20.0)
            each.open()
    for client in clients:
        assert (client.text, client.end, client.refusals) == ("01234", "message_end", [])
        assert client.ids == sorted(set(client.ids))
    assert fake.posts == STREAMS
    assert max(client.connections for client in clients) > 1


async def test_a_thousand_readers_of_a_dead_process_resume_elsewhere(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, session: aiohttp.ClientSession, user: str
) -> None:
    """All within a second, to a process that knows nothing of their turns: one backend stream each."""
    one, two = [await asyncio.to_thread(fleet.start, lease_seconds=5.0) for _ in range(2)]
    fake.script = script(said("So ", "far"), gate, delta(", so good"), succeed())
    begun = [await EventSource(session, lambda: one.url, user).begin() for _ in range(TURNS)]
    await until(lambda: fake.open_streams == TURNS)
    await asyncio.to_thread(die, one)
    await until(lambda: fake.open_streams == 0)
    readers = [EventSource(session, lambda: two.url, user) for _ in range(READERS)]

    async def follow(number: int, reader: EventSource) -> None:
        await asyncio.sleep(random.random())
        await reader.follow(begun[number % TURNS])

    async with asyncio.timeout(2 * BOUND), asyncio.TaskGroup() as group:
        for number, reader in enumerate(readers):
            group.create_task(follow(number, reader))
        await until(lambda: all(reader.text == "So far" for reader in readers))
        await until(lambda: len(two.gateway.live.running()) == TURNS)
        gate.open()
    for reader in readers:
        assert (reader.text, reader.end, reader.refusals) == ("So far, so good", "message_end", [])
    # That of the owner that died, and the follower's, which goes on as the owner's.
    assert len(fake.streams) == 2 * TURNS
