"""Ended turns that are kept for readers: all that they take is counted, and bounded."""

import gc
from sys import getsizeof
from types import FrameType, FunctionType, ModuleType
from typing import Any

import uvloop

from agent_gateway.apps.config import AppConfig
from agent_gateway.backend.client import HTTPBackend
from agent_gateway.limits import Limits, RegistryLimits
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turn_resources import Resources
from agent_gateway.turns.live_turn import LiveTurn
from tests.support.chat import Chat
from tests.support.fakes.script import script, succeed, text, thinking, tool_call, tool_result
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import StartGateway, wait_until

SHARED = (
    uvloop.Loop,
    Resources,
    TurnStores,
    HTTPBackend,
    AppConfig,
    ModuleType,
    FunctionType,
    FrameType,
    type,
)
"""What many turns have in common."""


def texts_of(*roots: object) -> int:
    """Bytes of all texts that are kept because of these objects."""
    seen: set[int] = set()
    found, size = list(roots), 0
    while found:
        item = found.pop()
        if id(item) in seen or isinstance(item, SHARED):
            continue
        seen.add(id(item))
        if isinstance(item, str | bytes):
            size += getsizeof(item)
        # Structs without garbage collection do not name what they refer to.
        found += [getattr(item, name) for name in getattr(item, "__struct_fields__", ())]
        found += gc.get_referents(item)
    return size


def kept(server: Any) -> list[LiveTurn]:
    return [live for live, *_ in server.gateway.live._ended._turns.values()]


def test_the_size_of_a_kept_turn_counts_everything(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    server = start_gateway()
    words = ["word " * 40] * 200
    told = [
        *thinking("hm " * 3000),
        *tool_call("1", "t", {"a": "b" * 9000}),
        *tool_result("1", "t", "r" * 9000),
    ]
    fake.queue(script(*told, text(*words), succeed()))
    with server.client() as client:
        chat = Chat(client, user)
        sent = {"text": "i" * 1_000_000, **{f"n{number}": "v" * 100 for number in range(1000)}}
        heard = chat.streaming("q" * 1_000_000, inputs=sent)
        wait_until(lambda: kept(server))
        (live,) = kept(server)
        frames = server.gateway.sources.frames.cache(live)
        assert texts_of(frames) > len(heard.raw)
        size = server.gateway.live._ended.size
        assert 40_000 + len(heard.raw) < size < 1_000_000
        assert texts_of(live, frames) < size
        # A reader in another form makes it no larger.
        for mode in ("agent-chat", "agent"):
            assert chat.resumed(heard.task_id, mode=mode).answer.startswith("word ")
        assert texts_of(live, frames) < size


def test_kept_turns_beyond_the_limit_are_dropped(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    server = start_gateway(limits=Limits(registry=RegistryLimits(keep_bytes=300_000)))
    fake.script = script(text("x" * 30_000), succeed())
    with server.client() as client:
        for number in range(8):
            Chat(client, f"{user}-{number}").streaming("q" * 200_000)
            frames = server.gateway.sources.frames
            assert sum(texts_of(live, frames.cache(live)) for live in kept(server)) < 300_000
        wait_until(lambda: 3 <= len(kept(server)) < 8)


def test_kept_turns_are_forgotten_after_their_time(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    """The first one and the last one; and one that ends after all were forgotten."""
    server = start_gateway(limits=Limits(registry=RegistryLimits(keep_seconds=0.5)))
    fake.script = script(text("x"), succeed())
    with server.client() as client:
        for _ in range(2):
            for number in range(3):
                Chat(client, f"{user}-{number}").streaming()
            wait_until(lambda: not kept(server))
            assert server.gateway.live._ended.size == 0
