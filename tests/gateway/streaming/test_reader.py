"""Readers of one turn, caught up and behind: real connections, and a log that the test itself extends."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from agent_gateway.crowd import Ticker
from agent_gateway.domain.events import AgentThought, LLMChunk, Outcome, Result, TurnEvent
from agent_gateway.domain.ids import AppId, ConversationId, MessageId, TaskId
from agent_gateway.domain.turns import Step, Turn
from agent_gateway.limits import ServerLimits
from agent_gateway.routes.streams.frames import PING, FrameCache, FrameEncoder, FrameVariant
from agent_gateway.routes.streams.reader import PING_TICKS, Reader
from agent_gateway.routes.streams.response import TurnStream
from agent_gateway.routes.streams.wire import Wire
from agent_gateway.runner import TurnRunner
from agent_gateway.server.config import server_config
from agent_gateway.server.listener import Loop
from agent_gateway.store.turns.reader import TurnView
from agent_gateway.turns.live_turn import LiveTurn
from agent_gateway.turns.log import EventLog
from tests.support.gateway_server import BOUND

pytestmark = pytest.mark.anyio

A = FrameVariant("chat", ids=False)
B = FrameVariant("agent", ids=True)
VIEW = TurnView(TaskId("t"), ConversationId("c"), MessageId("m"), 0, "chat", ended=False)
PIECE = "x" * 8_000
READERS = 1_000
LONG = 60.0
"""Seconds until a ping, where none is wanted."""
LOOKS = ServerLimits(look_seconds=0.02, stall_seconds=0.2)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": Loop}


class CountingEncoder(FrameEncoder):
    """Notes what it has encoded; fails at the events of one variant if it is told to."""

    def __init__(self) -> None:
        super().__init__(VIEW, str)
        self.encoded: list[tuple[FrameVariant, int]] = []
        self.fails_for: FrameVariant | None = None

    @override
    def encode(self, event: TurnEvent, variant: FrameVariant) -> bytes:
        if variant == self.fails_for:
            raise ValueError
        self.encoded.append((variant, event.position))
        return super().encode(event, variant)


class Runner:
    """How far the run of the turn was folded here, and how the turn ended."""

    position = 0
    result: Result | None = None


class Turns:
    """One turn behind a server of this project, or behind uvicorn's own; the test makes its events."""

    def __init__(
        self, ping_seconds: float, limits: ServerLimits | None = None, *, plain_uvicorn: bool = False
    ) -> None:
        self.log = EventLog()
        self.runner = Runner()
        turn = cast("Turn", type("Begun", (), {"app": type("App", (), {"id": AppId("a")}), "user": "u"}))
        self.live = LiveTurn(turn, self.log, cast("TurnRunner", self.runner))
        self.encoder = CountingEncoder()
        self.ticker = Ticker(ping_seconds / PING_TICKS)
        self._cache = FrameCache(self.log, self.encoder)
        if plain_uvicorn:
            config = uvicorn.Config(self._app, http="h11", interface="asgi3", lifespan="off", log_config=None)
        else:
            config = server_config(self._app, limits or ServerLimits(), interface="asgi3", lifespan="off")
        self.server = uvicorn.Server(config)
        self._said = 0

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        variant = A if scope["path"] == "/a" else B
        after = int(scope["query_string"] or b"0")

        async def body(wire: Wire) -> None:
            await Reader(self.live, self._cache, variant, wire, self.ticker, after=after).read()

        await TurnStream(body, {})(scope, receive, send)

    async def __aenter__(self) -> Self:
        listening = socket.create_server(("127.0.0.1", 0), backlog=2_000)
        self.port: int = listening.getsockname()[1]
        self._serving = asyncio.create_task(self.server.serve([listening]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.log.close()
        self.server.should_exit = True
        await self._serving

    def say(self, *texts: str) -> None:
        """The events of one piece of the run, at the next positions."""
        events = [LLMChunk(self._said + number, text) for number, text in enumerate(texts, 1)]
        self._said += len(events)
        self.runner.position = self._said
        self.log.extend(events)

    @property
    def caught_up(self) -> int:
        """Readers that have caught up."""
        return len(self.log.caught_up)

    @property
    def written(self) -> int:
        """Bytes that all connections were given so far."""
        return sum(cast("Any", one)._written for one in self.server.server_state.connections)


class Client:
    """Reads when the test says so, with the smallest of windows."""

    def __init__(self, port: int, path: str, more: bytes = b"") -> None:
        self.head = b""
        self.chunks: list[bytes] = []
        self.positions: list[int] = []
        """Of the events that came."""
        self._raw = b""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.send(b"GET %b HTTP/1.1\r\nHost: test\r\n%b\r\n" % (path.encode(), more))

    async def read(self, condition: Callable[[], bool]) -> None:
        """Read until this holds."""
        async with asyncio.timeout(BOUND):
            while not condition():
                assert await self._read_some(), "the server closed the connection"

    async def heard(self, count: int) -> None:
        """Read until so many events came."""
        await self.read(lambda: len(self.positions) >= count)

    async def rest(self) -> None:
        """Read to the end of the response, or of the connection."""
        async with asyncio.timeout(BOUND):
            while not self.is_complete and await self._read_some():
                pass

    async def _read_some(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        self._raw += data
        if not self.head and b"\r\n\r\n" in self._raw:
            self.head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        while self.head and (at := self._raw.find(b"\r\n")) > 0:
            end = at + 2 + int(self._raw[:at], 16)
            if len(self._raw) < end + 2:
                break
            self.chunks.append(self._raw[at + 2 : end])
            self.positions += map(int, re.findall(rb'"event_id":(\d+),', self.chunks[-1]))
            self._raw = self._raw[end + 2 :]
        return bool(data)

    @property
    def body(self) -> bytes:
        """What came so far, in whole chunks."""
        return b"".join(self.chunks)

    @property
    def is_complete(self) -> bool:
        """The response has ended as its framing says."""
        return self.chunks[-1:] == [b""]

    @property
    def pings(self) -> int:
        return self.body.count(PING)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0)


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    async with Turns(LONG) as turns:
        yield turns


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(turns: Turns, path: str, more: bytes = b"") -> Client:
        clients.append(Client(turns.port, path, more))
        return clients[-1]

    yield make
    for client in clients:
        client.socket.close()


Connect = Callable[..., Client]


async def test_a_reader_that_has_caught_up_is_served_inside_of_the_event(
    turns: Turns, connect: Connect
) -> None:
    """No task has run when `extend` returns, and the bytes are written; all of them in one write."""
    client = connect(turns, "/a")
    await until(lambda: turns.caught_up == 1)
    for texts in (["a"], ["b", "c", "d"]):
        before = turns.written
        turns.say(*texts)
        assert turns.written > before
    await client.heard(4)
    assert client.positions == [1, 2, 3, 4]
    assert [chunk.count(b"data: ") for chunk in client.chunks] == [0, 1, 3], "after the first ping"


async def test_a_reader_falls_behind_when_its_client_does_not_read_and_catches_up(
    turns: Turns, connect: Connect
) -> None:
    """Twice, and the turn goes on in every state."""
    slow, quick = connect(turns, "/b"), connect(turns, "/a")
    await until(lambda: turns.caught_up == 2)
    for _ in range(2):
        while turns.caught_up > 1:
            turns.say(PIECE)
            await quick.heard(len(turns.log.events))
        # Behind: it costs the turn nothing, and its connection no more than a bounded number of bytes.
        before = turns.written
        for _ in range(20):
            turns.say(PIECE)
            await quick.heard(len(turns.log.events))
        assert turns.written - before < 22 * len(PIECE)
        said = len(turns.log.events)
        await slow.heard(said - 10)
        # While it pulls, there is more.
        turns.say("more", "and more")
        await slow.heard(len(turns.log.events))
        await quick.heard(len(turns.log.events))
        await until(lambda: turns.caught_up == 2)
    turns.log.close()
    for client in (slow, quick):
        await client.rest()
        assert client.is_complete
        assert client.positions == list(range(1, len(turns.log.events) + 1))


async def test_a_reader_of_more_than_one_write_falls_behind_until_it_has_all(
    turns: Turns, connect: Connect
) -> None:
    client = connect(turns, "/b")
    await until(lambda: turns.caught_up == 1)
    turns.say(*[PIECE] * 200)
    await until(lambda: turns.caught_up == 0)
    await client.heard(200)
    assert client.positions == list(range(1, 201))
    await until(lambda: turns.caught_up == 1)


async def test_the_end_of_the_log_ends_the_responses_of_all_readers(turns: Turns, connect: Connect) -> None:
    clients = [connect(turns, path) for path in ("/a", "/b", "/a", "/b")]
    await until(lambda: turns.caught_up == 4)
    turns.say("the end")
    turns.log.close()
    for client in clients:
        await client.rest()
        assert client.is_complete
        assert client.positions == [1]
    await until(lambda: turns.live.readers == 0)
    assert turns.caught_up == 0


async def test_a_hand_over_sends_away_only_the_readers_that_carry_ids(turns: Turns, connect: Connect) -> None:
    plain, numbered = connect(turns, "/a"), connect(turns, "/b")
    await until(lambda: turns.caught_up == 2)
    turns.say("here")
    turns.live.hand_over()
    await numbered.rest()
    assert numbered.is_complete
    assert re.fullmatch(rb"retry: \d+\n\nevent: ping\n\ndata: .*\nid: 1\n\nretry: \d+\n\n", numbered.body)
    await until(lambda: turns.caught_up == 1)
    before = turns.written
    turns.say("still here")
    assert turns.written > before, "it is caught up as before"
    await plain.heard(2)
    assert plain.positions == [1, 2]
    assert b"retry:" not in plain.body


async def test_the_frames_of_each_variant_are_encoded_once(turns: Turns, connect: Connect) -> None:
    """For the first reader of the variant, also when it has come before others."""
    first = [connect(turns, path) for path in ("/a", "/b")]
    await until(lambda: turns.caught_up == 2)
    for _ in range(3):
        turns.say("x")
    late = [connect(turns, path) for path in ("/a", "/b")]
    await until(lambda: turns.caught_up == 4)
    for _ in range(3):
        turns.say("y")
    for client in (*first, *late):
        await client.heard(6)
        assert client.positions == list(range(1, 7))
    wanted = [(variant, position) for variant in (A, B) for position in range(1, 7)]
    assert sorted(turns.encoder.encoded) == sorted(wanted)


async def test_a_thousand_readers_share_each_frame(turns: Turns, connect: Connect) -> None:
    """Each gets every event, once and in order, also while the log grows before all have been called."""
    clients = [connect(turns, "/b") for _ in range(READERS)]
    await until(lambda: turns.caught_up == READERS)
    for number in range(10):
        turns.say("one")
        turns.say("two", "three")
        await clients[0].heard(3 * number + 3)
    turns.log.close()
    for client in clients:
        await client.rest()
        assert client.is_complete
        assert client.positions == list(range(1, 31))
    assert turns.encoder.encoded == [(B, position) for position in range(1, 31)]
    await until(lambda: turns.live.readers == 0)


async def test_a_frozen_log_still_serves_and_keeps_nothing(turns: Turns, connect: Connect) -> None:
    client = connect(turns, "/b")
    await until(lambda: turns.caught_up == 1)
    turns.say("a")
    turns.log.freeze()
    kept = turns.log.size - turns.log.events_size
    turns.say("b")
    await client.heard(2)
    assert client.positions == [1, 2]
    assert turns.log.size - turns.log.events_size == kept


async def test_readers_that_leave_are_let_go_at_once(turns: Turns, connect: Connect) -> None:
    """Whether they have caught up or wait for room; the others are served on."""
    stays, goes, stuck = (connect(turns, "/b") for _ in range(3))
    await until(lambda: turns.caught_up == 3)
    while turns.caught_up == 3:
        turns.say(PIECE)
        for client in (stays, goes):
            await client.heard(len(turns.log.events))
    goes.socket.close()
    await until(lambda: turns.live.readers == 2)
    stuck.socket.close()
    await until(lambda: turns.live.readers == 1)
    turns.say("on")
    await stays.read(lambda: stays.positions == list(range(1, len(turns.log.events) + 1)))
    assert turns.caught_up == 1


async def test_a_reader_that_is_ahead_of_the_log_gets_only_what_is_new_to_it(
    turns: Turns, connect: Connect
) -> None:
    """The run is being folded again: the log has less than another process has sent this reader."""
    turns.say("1", "2")
    client = connect(turns, "/b?4")
    await until(lambda: turns.caught_up == 1)
    turns.say("3")
    turns.say("4", "5")
    await client.heard(1)
    assert client.positions == [5]
    await until(lambda: turns.caught_up == 1)
    before = turns.written
    turns.say("6")
    assert turns.written > before
    await client.heard(2)
    assert client.positions == [5, 6]


async def test_a_reader_that_stays_ahead_gets_the_stored_end(turns: Turns, connect: Connect) -> None:
    client = connect(turns, "/b?4")
    await until(lambda: turns.caught_up == 1)
    turns.say("1", "2")
    chunks = tuple(LLMChunk(number, str(number)) for number in range(1, 7))
    turns.runner.result = Result(Outcome.COMPLETED, chunks, (), 8)
    turns.log.close()
    await client.rest()
    assert client.is_complete
    assert client.positions == [5, 6, 7, 8]


async def test_a_reader_whose_frame_cannot_be_made_fails_alone(turns: Turns, connect: Connect) -> None:
    fails, works = connect(turns, "/a"), connect(turns, "/b")
    await until(lambda: turns.caught_up == 2)
    turns.encoder.fails_for = A
    turns.say("a")
    await fails.rest()
    assert not fails.is_complete
    turns.say("b")
    await works.heard(2)
    assert works.positions == [1, 2]
    assert (turns.caught_up, turns.live.readers) == (1, 1)


async def test_pings_come_while_all_events_are_hidden_from_a_reader(connect: Connect) -> None:
    """A mode that does not show what the agent thinks is not silent for that."""
    async with Turns(0.02) as turns:
        client = connect(turns, "/a")
        await until(lambda: turns.caught_up == 1)
        reading = asyncio.create_task(client.read(lambda: client.pings == 4))
        position = 0
        async with asyncio.timeout(BOUND):
            while not reading.done():
                position += 1
                turns.log.extend([AgentThought(position, Step(1, position, "thinks"))])
                await asyncio.sleep(0)
        await reading
        assert client.body == PING * 4


async def test_pings_wait_for_a_client_that_does_not_read(connect: Connect) -> None:
    async with Turns(0.02) as turns:
        client = connect(turns, "/a")
        await until(lambda: turns.caught_up == 1)
        while turns.caught_up:
            turns.say(PIECE)
            await asyncio.sleep(0)
        # At the most one waits with its task, however long the silence is.
        ticks = turns.ticker.ticks
        other = connect(turns, "/b?1000000000")
        await until(lambda: turns.ticker.ticks > ticks + 5 * PING_TICKS)
        said = len(turns.log.events)
        await client.heard(said)
        before = client.body.rindex(b"data: ")
        assert client.body[:before].count(PING) == 1, "the one at its beginning"
        other.socket.close()


async def test_a_request_body_that_comes_late_is_read_and_discarded(connect: Connect) -> None:
    """The stream goes on meanwhile; a client that stops in the middle of it is cut."""
    size = 2_000_000
    async with Turns(LONG, LOOKS) as turns:
        whole = connect(turns, "/b", b"Content-Length: %d\r\n" % size)
        await until(lambda: turns.caught_up == 1)
        async with asyncio.timeout(BOUND):
            await asyncio.get_running_loop().sock_sendall(whole.socket, b"x" * size)
        half = connect(turns, "/b", b"Content-Length: %d\r\n" % size)
        await until(lambda: turns.live.readers == 2)
        turns.say("a")
        await half.rest()
        assert not half.is_complete
        await until(lambda: turns.live.readers == 1)
        turns.say("b")
        turns.log.close()
        await whole.rest()
        assert whole.is_complete
        assert whole.positions == [1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], ids=["plain"])
async def test_another_server_than_ours_serves_the_same(connect: Connect) -> None:
    """Without the extension every reader pulls; pings, the end and the disconnect are the same."""
    async with Turns(0.02, plain_uvicorn=True) as turns:
        stays, goes = connect(turns, "/b"), connect(turns, "/a")
        await until(lambda: turns.caught_up == 2)
        await stays.read(lambda: stays.pings == 3)
        for text in ("a", "b", "c"):
            turns.say(text)
            await stays.heard(len(turns.log.events))
        goes.socket.close()
        await until(lambda: turns.live.readers == 1)
        turns.log.close()
        await stays.rest()
        assert stays.is_complete
        assert stays.positions == [1, 2, 3]
