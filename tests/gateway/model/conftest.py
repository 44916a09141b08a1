"""A gateway with the built-in agent, a model provider on this machine, and apps made of layers."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.chat import Chat
from tests.support.fakes.model_server import ModelServer, serving
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.model_apps import PROVIDER_KEY, ChatWith, app_of
from tests.support.rows import add_app

_numbers = itertools.count()


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelServer]:
    with serving(PROVIDER_KEY) as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", provider.base_url)
        patch.setenv("OPENAI_API_KEY", PROVIDER_KEY)
        yield provider


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, provider: ModelServer) -> Iterator[GatewayServer]:
    with GatewayServer(tmp_path_factory.mktemp("model"), model="openai-chat:m") as server:
        yield server


@pytest.fixture
def model() -> str:
    """The name of a model that no other test asks."""
    return f"m{next(_numbers)}x"


@pytest.fixture
def chat_with(server: GatewayServer) -> Iterator[ChatWith]:
    """Makes somebody who talks to an app with these layers, by the kinds of the layers."""
    with ExitStack() as stack:

        def chat(*, app: Json | None = None, key: str = "", **layers: Any) -> Chat:
            key = key or f"key-{next(_numbers)}"
            add_app(server.settings.resolved_database_url(), key, app_of(app or {}, **layers))
            return Chat(stack.enter_context(server.client(key)), "ada")

        yield chat
