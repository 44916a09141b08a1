"""How much work a token, a reader and a turn are, counted: what grows is noticed on any machine.

A figure here is no goal. When a change makes it smaller, write the smaller one; when one makes it larger,
the change has to be worth it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from agent_gateway.limits import DEFAULTS, MaintenanceIntervals
from tests.support.chat import Chat, Stream
from tests.support.fakes.collector import Collector
from tests.support.fakes.script import Gate, delta, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, StartGateway
from tests.support.work import Each, counted

TOKEN: Final = Each(calls=52, callbacks=1, switches=0, timers=0)
"""From the bytes of the backend to those of the reader, when no other token is on its way."""
FURTHER_READER: Final = Each(calls=17, callbacks=0.05, switches=0.05, timers=0.05)
"""Of the same token, for each reader beside the first one; now and then one falls behind."""
TURN: Final = {
    "sqlite": Each(calls=2340, callbacks=71, switches=29, timers=10.5),
    "postgres": Each(calls=3435, callbacks=68.5, switches=31.5, timers=22.5),
}
"""A streamed turn of one token, the first of its conversation, over a connection that is there."""

MARGIN: Final = 1.1
"""Versions of Python and of libraries differ by less."""
WINDOW, WINDOWS = 5, 80
"""Tokens that are counted together, and how often: what happens now and then is in few of them. The server
itself looks up ten times a second, so on a slow machine that was in most windows of 40 tokens."""
READERS: Final = 10

NOTHING_PERIODIC: Final = replace(
    DEFAULTS,
    maintenance=MaintenanceIntervals(
        sweep_seconds=600, status_seconds=600, expiry_seconds=600, outbox_seconds=600
    ),
)


SETTINGS: Final = {"lease_seconds": 600.0, "ping_seconds": 600.0}


@pytest.fixture
def quiet(fake: ScriptedBackend, tmp_path: Path) -> Iterator[GatewayServer]:
    """A gateway that does nothing but its turns. A token never gets near a database."""
    with GatewayServer(tmp_path, limits=NOTHING_PERIODIC, backend_url=fake.url, **SETTINGS) as server:
        yield server


def test_a_token_is_little_work_and_the_hundredth_is_no_more(
    quiet: GatewayServer, fake: ScriptedBackend
) -> None:
    windows = list(work_per_token(quiet, fake, readers=1))
    assert_at_most(middle(windows), TOKEN)
    half = len(windows) // 2
    assert middle(windows[half:]).calls <= middle(windows[:half]).calls * MARGIN


def test_a_token_of_a_traced_turn_is_no_more_work(
    fake: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with GatewayServer(tmp_path, limits=NOTHING_PERIODIC, backend_url=fake.url, **SETTINGS) as server:
            assert_at_most(middle(list(work_per_token(server, fake, readers=1))), TOKEN)
        assert collector.of_kind("client"), "nothing was traced"


def test_a_further_reader_shares_the_work(quiet: GatewayServer, fake: ScriptedBackend) -> None:
    one = middle(list(work_per_token(quiet, fake, readers=1)))
    many = middle(list(work_per_token(quiet, fake, readers=1 + READERS)))
    each = {name: (value - vars(one)[name]) / READERS for name, value in vars(many).items()}
    assert_at_most(Each(**each), FURTHER_READER)


def test_a_turn_is_so_much_work(start_gateway: StartGateway, fake: ScriptedBackend) -> None:
    server = start_gateway(limits=NOTHING_PERIODIC, **SETTINGS)
    fake.script = script(text("Hello"), succeed())
    with server.client() as client, counted(server) as work:
        chat = Chat(client, "ada")
        marks = []
        for _ in range(5):
            for _ in range(10):
                chat.streaming()
            marks.append(work.copy())
    kind = "sqlite" if server.settings.embedded_database else "postgres"
    assert_at_most(middle([after.since(before, 10) for before, after in pairwise(marks)]), TURN[kind])


def test_what_is_counted(quiet: GatewayServer) -> None:
    async def sleeps() -> None:
        for _ in range(20):
            await asyncio.sleep(0.0001)

    with counted(quiet) as work:
        before = work.copy()
        quiet.run(sleeps())
        each = work.copy().since(before, 20)
    assert each.timers == 1
    assert 1 <= each.switches <= 1.2
    # The end of a sleep is one callback, and the task goes on in another one.
    assert 2 <= each.callbacks <= 2.4
    assert 5 <= each.calls <= 15


def work_per_token(server: GatewayServer, fake: ScriptedBackend, readers: int) -> Iterator[Each]:
    """The work for each token of a turn, window by window; the next one comes when all have the last one."""
    gates = [Gate() for _ in range(WINDOW * WINDOWS + 1)]
    fake.script = script(text("Hello"), [step for gate in gates for step in (gate, delta("x"))], succeed())
    with ExitStack() as stack:
        chat = Chat(stack.enter_context(server.client()), "ada")
        streams: list[Stream] = [stack.enter_context(chat.open())]
        work = stack.enter_context(counted(server))
        for _ in range(readers - 1):
            streams.append(stack.enter_context(chat.follow(streams[0].task_id)))
        for stream in streams:
            stream.until("Hello")
        marks = []
        for number, gate in enumerate(gates):
            gate.open()
            for stream in streams:
                stream.next()
            if number % WINDOW == 0:
                marks.append(work.copy())
        for stream in streams:
            stream.rest()
    for before, after in pairwise(marks):
        yield after.since(before, WINDOW)


def middle(windows: list[Each]) -> Each:
    """The median of each figure."""
    return Each(**{name: median(vars(window)[name] for window in windows) for name in vars(windows[0])})


def assert_at_most(measured: Each, figure: Each) -> None:
    """None of its counts is larger than these, with a margin."""
    larger = {
        name: value for name, value in vars(measured).items() if value > vars(figure)[name] * MARGIN + 0.01
    }
    assert not larger, f"{larger} of {measured}: more than {figure}"
