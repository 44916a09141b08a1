"""A gateway whose app is a chat, one whose app is an agent, and the backend of both."""

from collections.abc import Iterator

import pytest

from tests.clients.story import Story
from tests.fakes.scripted_backend import ScriptedBackend
from tests.gateway_server import GatewayServer


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


@pytest.fixture(scope="module")
def backend(story: Story) -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        backend.script = story
        yield backend


@pytest.fixture(scope="module")
def gateway(backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    with GatewayServer(tmp_path_factory.mktemp("data"), backend_url=backend.url) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def agent_gateway(
    backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """The same, but its app is an agent that shows its steps."""
    data = tmp_path_factory.mktemp("data")
    with GatewayServer(data, backend_url=backend.url, app_mode="agent-chat") as gateway:
        yield gateway
