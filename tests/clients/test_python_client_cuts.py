"""The Python client loses and doubles nothing in a thousand cuts at seeded places, sync and async each."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Final

import pytest

from agent_gateway_client import AsyncClient, ChatStreamEvent, Client, ConnectionLost, Mode, Reconnect, Retry
from tests.support.fakes.script import Gate, Script, script, succeed, text, thinking
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.fakes.tcp_proxy import TcpProxy, http_proxy
from tests.support.gateway_server import API_KEY, GatewayServer
from tests.support.json_type import Json

TURNS: Final = 14
CUTS: Final = 1000
"""How many are at least seen by the turns of one client."""
LONGEST: Final = 1200
"""Bytes of a response after which the latest cut comes: 400 of headers, and a few events."""
LONGEST_OF_AGENT: Final = 9000
"""The same in mode `agent`, where one event has the whole answer."""
FIRST: Final = [f"{number} naïve 你好 🎉 \u2028 " for number in range(30)]
LATER: Final = [f'{number} "quoted" \\ \x85 𝄞 ' for number in range(30)]
ANSWER: Final = "".join(FIRST + LATER)
RETRY: Final = Retry(attempts=200, first_seconds=0.0)
AT_ONCE: Final = 6


@dataclass
class Cut:
    """One turn behind a proxy that cuts, and what its reader saw."""

    seed: int
    gate: Gate = field(default_factory=Gate)
    """The second half of the answer comes when the first half was read: so the turn is live in between."""
    events: list[ChatStreamEvent] = field(default_factory=list)
    reconnects: list[Reconnect] = field(default_factory=list)
    text: str = ""
    task_id: str | None = None

    @property
    def query(self) -> str:
        return f"seed {self.seed}"

    @property
    def mode(self) -> Mode | None:
        """Every third turn shows its steps and repeats its answer."""
        return "agent" if self.seed % 3 == 2 else None

    def proxy(self, url: str) -> TcpProxy:
        """Cuts so many connections that none is left for the rest of the answer."""
        random, longest = Random(self.seed), LONGEST_OF_AGENT if self.mode else LONGEST
        return http_proxy(url, [random.randint(1, longest) for _ in range(400)])

    def note(self, event: ChatStreamEvent) -> None:
        self.events.append(event)
        if event["event"] in ("message", "agent_message") and FIRST[-1] in event["answer"]:
            self.gate.open()


@pytest.fixture
def cuts() -> list[Cut]:
    return [Cut(seed) for seed in range(TURNS)]


@pytest.fixture
def scripted(backend: ScriptedBackend, cuts: list[Cut]) -> Iterator[ScriptedBackend]:
    """The backend gives each turn its own gate."""
    scripts = {
        cut.query: script(thinking("So. "), text(*FIRST), cut.gate, text(*LATER, index=2), succeed())
        for cut in cuts
    }

    def by_query(body: Json) -> Script:
        return scripts[query_of(body)]

    before, backend.script = backend.script, by_query
    yield backend
    backend.script = before
    for cut in cuts:
        cut.gate.open()


def read_sync(gateway: GatewayServer, cuts: list[Cut]) -> None:
    def read(cut: Cut) -> None:
        with (
            cut.proxy(gateway.url) as proxy,
            Client(proxy.url, API_KEY, user="cut", retry=RETRY, silence_seconds=20) as client,
        ):
            turn = client.chat(cut.query, mode=cut.mode, on_reconnect=cut.reconnects.append)
            for event in turn:
                cut.note(event)
            cut.text, cut.task_id = turn.text(), turn.task_id

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(read, cuts))


def read_async(gateway: GatewayServer, cuts: list[Cut]) -> None:
    async def read(cut: Cut, free: asyncio.Semaphore) -> None:
        async with free:
            with cut.proxy(gateway.url) as proxy:
                async with AsyncClient(
                    proxy.url, API_KEY, user="cut", retry=RETRY, silence_seconds=20
                ) as client:
                    turn = client.chat(cut.query, mode=cut.mode, on_reconnect=cut.reconnects.append)
                    async for event in turn:
                        cut.note(event)
                    cut.text, cut.task_id = await turn.text(), turn.task_id

    async def read_all() -> None:
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for cut in cuts:
                tasks.create_task(read(cut, free))

    asyncio.run(read_all())


@pytest.mark.slow
@pytest.mark.parametrize("read", [read_sync, read_async], ids=["sync", "async"])
def test_a_thousand_cuts_lose_and_double_nothing(
    gateway: GatewayServer,
    scripted: ScriptedBackend,
    cuts: list[Cut],
    read: Callable[[GatewayServer, list[Cut]], None],
) -> None:
    before = scripted.posts
    read(gateway, cuts)
    assert scripted.posts - before == TURNS
    lost = [reconnect for cut in cuts for reconnect in cut.reconnects]
    assert len(lost) >= CUTS
    assert all(isinstance(reconnect.cause, ConnectionLost) for reconnect in lost)
    # Some cuts came before the turn was known: its POST was repeated. Others came after some events.
    assert {reconnect.after == 0 for reconnect in lost} == {True, False}
    assert [cut.text for cut in cuts] == [ANSWER] * TURNS
    with Client(gateway.url, API_KEY, user="cut") as client:
        for cut in cuts:
            positions = [event["event_id"] for event in cut.events]
            assert positions == sorted(set(positions))
            assert cut.task_id is not None
            whole = list(client.follow_turn(cut.task_id, mode=cut.mode))
            # A step is told again while it grows, and only its last state is stored.
            assert without_steps(cut.events) == without_steps(whole)
            assert (cut.events[-1]["event"], cut.events[-2]["event"]) == (
                "message_end",
                "message",
            )


def without_steps(events: list[ChatStreamEvent]) -> list[ChatStreamEvent]:
    return [event for event in events if event["event"] != "agent_thought"]
