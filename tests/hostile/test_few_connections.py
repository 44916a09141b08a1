"""The database gives a process fewer connections than it wants: healthy turns end as they should."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from agent_gateway.errors import StoreUnavailable
from agent_gateway.limits import DEFAULTS, DatabaseLimits
from agent_gateway.store.db.connections import Pool
from agent_gateway.store.db.database import Database
from tests.support.chat import Chat, Heard, refused
from tests.support.fakes.script import Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, adopted
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.json_type import Json
from tests.support.limited_role import LimitedRole, limited_role

TURNS = 12


@pytest.fixture
def role(postgres_url: str) -> Iterator[LimitedRole]:
    with limited_role(postgres_url, 6) as role:
        yield role


def is_ready(server: GatewayServer) -> bool:
    with server.client() as client:
        return client.get("/readyz").status_code == 200


def lists_at_once(server: GatewayServer, user: str, count: int = 8) -> None:
    """So many requests that read at once, which take all the connections they can get."""

    def read() -> None:
        with server.client() as client:
            for _ in range(10):
                client.get("/conversations", params={"user": user})

    readers = [threading.Thread(target=read) for _ in range(count)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)


def uses_all(server: GatewayServer, user: str, role: LimitedRole, connections: int) -> None:
    """Requests that read at once, until the process has so many connections.

    The limit of a role is approximate: those that ask at the same moment may all be refused.
    """

    def full() -> bool:
        lists_at_once(server, user)
        return role.open_connections() == connections

    wait_until(full, 60)


@pytest.mark.parametrize("connections", [4, 5, 6])
def test_a_process_with_too_few_database_connections_completes_its_turns(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, role: LimitedRole, user: str, connections: int
) -> None:
    """Several leases long, while requests use all that is left for them: nothing is taken from anybody."""
    role.limit(connections)
    server = fleet.start(database_url=role.url)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chats = [fleet.chat(server, f"{user}-{number}") for number in range(TURNS)]
    heard: list[Heard] = []
    posting = [
        threading.Thread(target=lambda chat=chat: heard.append(chat.streaming()), daemon=True)
        for chat in chats
    ]
    for each in posting:
        each.start()
    fake.wait_until(lambda: fake.open_streams == TURNS)
    uses_all(server, user, role, connections)
    assert is_ready(server)
    gate.open()
    for each in posting:
        each.join(20)
    assert [(each.answer, each.last["event"]) for each in heard] == [
        ("So far, so good", "message_end")
    ] * TURNS
    for each in heard:
        turn = fleet.rows(each.task_id).turn
        assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 1, 0)
    assert fake.posts == TURNS


@pytest.mark.slow
def test_a_second_process_without_connections_adopts_nothing(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, role: LimitedRole, user: str
) -> None:
    """Nine for two processes: the one that has its own serves, the other is not ready and changes nothing."""
    role.limit(9)
    one = fleet.start(database_url=role.url)
    uses_all(one, user, role, 8)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chats = [fleet.chat(one, f"{user}-{number}") for number in range(10)]
    begun: list[Json] = [chat.background() for chat in chats]
    fake.wait_until(lambda: fake.open_streams == 10)
    with GatewayServer(fleet._folder, database_url=role.url, backend_url=fake.url, lease_seconds=1.2) as two:
        for _ in range(5):
            with two.client() as client:
                refused(client.get("/readyz"), 503, "service_unavailable")
                refused(Chat(client, user).post(), 503, "service_unavailable")
            assert is_ready(one)
        gate.open()
        for chat, turn in zip(chats, begun, strict=True):
            heard = chat.resumed(turn["task_id"])
            assert heard.last["event"] == "message_end"
            row = fleet.rows(turn["task_id"]).turn
            assert (row.outcome, row.epoch) == ("completed", 1)
        # With room for both, it serves as well.
        role.limit(20)
        wait_until(lambda: is_ready(two))
    assert fake.posts == 10


def test_maintenance_takes_over_connections_of_requests(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, role: LimitedRole, user: str
) -> None:
    """The limit falls and all connections break: the first that are given back are for heartbeats."""
    role.limit(8)
    server = fleet.start(database_url=role.url, lease_seconds=3.0)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chat = fleet.chat(server, user)
    with chat.open() as stream:
        stream.until("So far")
        uses_all(server, user, role, 8)
        role.limit(4)
        role.terminate()
        wait_until(lambda: is_ready(server))
        lists_at_once(server, user)
        assert is_ready(server)
        assert role.open_connections() <= 4
        gate.open()
        heard = stream.rest()
    assert (heard.answer, heard.last["event"]) == ("So far, so good", "message_end")
    turn = fleet.rows(heard.task_id).turn
    assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 1, 0)


def test_readers_get_the_end_that_another_process_stored(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, role: LimitedRole, user: str
) -> None:
    """It cannot write and is not ready; another process ends the turn, and it reads the row."""
    role.limit(8)
    one, two = fleet.start(database_url=role.url), fleet.start()
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with fleet.chat(one, user).open() as stream:
        stream.until("So far")
        role.limit(0)
        role.terminate()
        adopted(two, stream.task_id)
        assert not is_ready(one)
        gate.open()
        elsewhere = fleet.chat(two, user).resumed(stream.task_id)
        # One connection: enough to look, and for nothing else.
        role.limit(1)
        heard = stream.rest()
    assert heard.answer == elsewhere.answer == "So far, so good"
    assert heard.last["event"] == "message_end"
    turn = fleet.rows(heard.task_id).turn
    assert (turn.outcome, turn.epoch, turn.adoptions) == ("completed", 2, 1)
    assert not is_ready(one)
    role.limit(8)
    wait_until(lambda: is_ready(one))


class HeldClosing:
    """The task with this number that closes connections waits until the test lets it continue.

    Connections that are opened from now on do not count: the test itself may have to close one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, task: int) -> None:
        self._connect, self._close, self._task = asyncpg.connect, asyncpg.Connection.close, task
        self._tasks: list[asyncio.Task[Any] | None] = []
        self._new: list[asyncpg.Connection] = []
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()
        held = self

        async def connect(*arguments: Any, **options: Any) -> asyncpg.Connection:
            connection: asyncpg.Connection = await held._connect(*arguments, **options)
            held._new.append(connection)
            return connection

        async def close(connection: asyncpg.Connection, **options: Any) -> None:
            if not any(connection is new for new in held._new):
                if (task := asyncio.current_task()) not in held._tasks:
                    held._tasks.append(task)
                if held._tasks.index(task) + 1 == held._task:
                    held.reached.set()
                    await held.let_go.wait()
            await held._close(connection, **options)

        monkeypatch.setattr(asyncpg, "connect", connect)
        monkeypatch.setattr(asyncpg.Connection, "close", close)


@asynccontextmanager
async def pooled(role: LimitedRole, connections: int) -> AsyncGenerator[Database]:
    """A database of which requests have so many connections, all that there are, and use none."""
    role.limit(connections)
    database = Database(role.url)
    try:
        async with asyncio.timeout(20):
            async with AsyncExitStack() as requests:
                for _ in range(connections):
                    await (await requests.enter_async_context(database.reading())).connection()
            yield database
    finally:
        await database.close()


async def used(database: Database, pool: Pool) -> None:
    async with database.transaction(pool):
        pass


async def both_duties(database: Database) -> None:
    """Two transactions at once, for which requests have to give up what they have."""
    async with database.transaction("duty"), database.transaction("duty"):
        pass


@pytest.mark.anyio
async def test_a_connection_in_use_while_others_are_closed_is_closed_later(
    role: LimitedRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returned to its pool, it would stay open without use."""
    async with pooled(role, 2) as database:
        closing = HeldClosing(monkeypatch, task=1)
        duty = asyncio.create_task(used(database, "duty"))
        await closing.reached.wait()
        async with database.reading() as session:
            await session.connection()
            closing.let_go.set()
            await duty
        await both_duties(database)


@pytest.mark.anyio
async def test_a_connection_opened_while_two_duties_wait_is_not_leaked(
    role: LimitedRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both give up what requests have; the one that is slower does not forget what was opened since."""
    async with pooled(role, 3) as database:
        closing = HeldClosing(monkeypatch, task=2)
        pools: list[Pool] = ["duty", "heartbeats"]
        duties = {asyncio.create_task(used(database, pool)) for pool in pools}
        await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
        async with database.reading() as session:
            await session.connection()
        closing.let_go.set()
        await asyncio.gather(*duties)
        await both_duties(database)


@pytest.mark.anyio
async def test_a_heartbeat_without_a_connection_fails_at_once(role: LimitedRole) -> None:
    """The second waits for the first one's connection; without it, it asks itself, in time for a lease."""
    role.limit(0)
    database = Database(role.url)
    try:
        async with asyncio.timeout(DEFAULTS.database.wait_seconds - 2):
            told = await asyncio.gather(
                used(database, "heartbeats"), used(database, "heartbeats"), return_exceptions=True
            )
    finally:
        await database.close()
    assert ["too many connections" in str(error) for error in told] == [True, True]


@pytest.mark.anyio
async def test_waiting_for_a_connection_does_not_poll_the_database(
    role: LimitedRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even while requests still use connections that they must give to a duty."""
    role.limit(2)
    # A refused connection is not requested again here, even on a slow machine.
    database = Database(role.url, limits=DatabaseLimits(grow_seconds=60.0))
    connect = asyncpg.connect
    asked: Counter[asyncio.Task[Any] | None] = Counter()

    async def counted(*args: Any, **kwargs: Any) -> Any:
        asked[asyncio.current_task()] += 1
        return await connect(*args, **kwargs)

    async def use(work: AbstractAsyncContextManager[Any]) -> None:
        async with work:
            pass

    monkeypatch.setattr(asyncpg, "connect", counted)
    try:
        async with asyncio.timeout(20), database.reading() as one:
            await one.connection()
            async with database.reading() as other:
                await other.connection()
                duty = asyncio.create_task(use(database.transaction("duty")))
                await until(lambda: asked[duty] >= 2)
                request = asyncio.create_task(use(database.reading()))
                await until(lambda: asked[duty] >= 5 and asked[request] >= 1)
                # Once for each place in the pool that is free.
                assert asked[request] <= 3
            await duty
        await request
    finally:
        await database.close()


@pytest.mark.anyio
async def test_a_duty_waits_for_connections_being_closed_for_another_duty(
    role: LimitedRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused while the last of them is being closed, when requests have none left to give."""
    async with pooled(role, 1) as database:
        closing, refusals = HeldClosing(monkeypatch, task=1), Refusals(monkeypatch)
        duty = asyncio.create_task(used(database, "duty"))
        await closing.reached.wait()
        before = refusals.count
        heartbeat = asyncio.create_task(used(database, "heartbeats"))
        await until(lambda: refusals.count > before)
        role.limit(2)
        closing.let_go.set()
        await asyncio.gather(duty, heartbeat)


@pytest.mark.anyio
async def test_a_request_refused_repeatedly_waits_no_longer_than_the_bound(
    role: LimitedRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a place but no connection: it fails in time, however often it asks meanwhile."""
    role.limit(1)
    limits = DatabaseLimits(wait_seconds=0.5, grow_seconds=0.1)
    database = Database(role.url, pool_size=2, limits=limits)
    async with asyncio.timeout(20), database.transaction():
        with pytest.raises(StoreUnavailable, match="no database connection was free"):
            await used(database, "requests")
    await used(database, "requests")
    await database.close()


@pytest.mark.anyio
async def test_a_cancelled_request_frees_its_place_when_its_connection_is_closed(
    role: LimitedRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not earlier: others would ask for a connection that cannot be opened yet."""
    role.limit(1)
    limits = DatabaseLimits(wait_seconds=0.1)
    database = Database(role.url, pool_size=1, limits=limits)
    leave, entered = asyncio.Event(), asyncio.Event()

    async def request() -> None:
        async with database.transaction():
            entered.set()
            await leave.wait()

    first = asyncio.create_task(request())
    async with asyncio.timeout(20):
        await entered.wait()
        refusals, closing = Refusals(monkeypatch), HeldClosing(monkeypatch, task=1)
        duty = asyncio.create_task(used(database, "duty"))
        await until(lambda: refusals.count >= 1)
        leave.set()
        await closing.reached.wait()
        first.cancel()
        await asyncio.wait({first})
        with pytest.raises(StoreUnavailable, match="no database connection was free"):
            await used(database, "requests")
        closing.let_go.set()
        await asyncio.gather(duty, return_exceptions=True)
    await database.close()


class Refusals:
    """Counts how often the database had no connection left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect, self.count = asyncpg.connect, 0

        async def counted(*args: Any, **kwargs: Any) -> Any:
            try:
                return await connect(*args, **kwargs)
            except asyncpg.TooManyConnectionsError:
                self.count += 1
                raise

        monkeypatch.setattr(asyncpg, "connect", counted)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
