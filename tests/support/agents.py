"""Gateways with the built-in agent on the scripted model provider, for tests of what agents can do."""

import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from agent_gateway.apps.file import parse_app
from tests.support.chat import Chat, Heard
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import ModelRequest, StepSource
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.rows import add_app

KEY = "sk-very-secret-0123456789"


class Agents:
    """Makes apps whose model answers as scripted, and people who talk to them."""

    def __init__(self, server: GatewayServer, provider: ModelServer, stack: ExitStack) -> None:
        self.server = server
        self.provider = provider
        self._stack = stack
        self._models: dict[str, str] = {}

    def app(
        self,
        *steps: StepSource,
        tools: Mapping[str, Any] | None = None,
        layers: Sequence[Json] = (),
        **more: Any,
    ) -> Chat:
        """Somebody who talks to an app of its own, whose model takes these steps and no more."""
        name = f"m{uuid.uuid4().hex[:12]}"
        self.provider.script(name, *steps)
        composed: list[Json] = [
            {"name": "prompt", "type": "plain.prompt", "config": {"prefix": "Be kind.", "user": "${query}"}},
            {"name": "history"},
            {"name": "llm", "type": "vendor.llm", "config": {"model": f"openai-chat:{name}"}},
            *([] if tools is None else [{"name": "tools", "type": "vendor.tools", "config": dict(tools)}]),
            *layers,
        ]
        data = {"name": name, "mode": "agent-chat", "composition": {"layers": composed}, **more}
        add_app(self.server.settings.resolved_database_url(), name, parse_app(data, None, name))
        chat = Chat(self._stack.enter_context(self.server.client(name)), f"user-{name}")
        self._models[chat.user] = name
        return chat

    def requests(self, chat: Chat) -> list[ModelRequest]:
        """What the model of this app was asked."""
        return self.provider.of(self._models[chat.user])


@contextmanager
def agents_of(folder: Path, provider: ModelServer, **settings: Any) -> Generator[Agents]:
    """A gateway of its own with the built-in agent."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("OPENAI_BASE_URL", provider.base_url)
        patch.setenv("OPENAI_API_KEY", KEY)
        server = stack.enter_context(GatewayServer(folder, model="openai-chat:m", **settings))
        with ExitStack() as people:
            yield Agents(server, provider, people)


def steps_of(heard: Heard) -> list[tuple[str, str, str]]:
    """Tool, arguments and result of each call of a turn as the stream shows them, newest state."""
    shown: dict[str, tuple[str, str, str]] = {}
    for event in heard.events:
        if event["event"] == "agent_thought" and event["tool"]:
            shown[event["id"]] = (event["tool"], event["tool_input"], event["observation"])
    return list(shown.values())


def children() -> set[int]:
    """The processes that this process has started, and theirs."""
    return {child.pid for child in psutil.Process().children(recursive=True)}
