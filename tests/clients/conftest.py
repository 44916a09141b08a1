"""A gateway whose app is a chat, one whose app is an agent, and the backend of both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from agent_gateway.apps.config import AppMode, default_app
from tests.support.client_story import Story
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.outbox import SUGGEST, small


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
    with serving("chat", backend, tmp_path_factory.mktemp("data")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def agent_gateway(
    backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    """The same, but its app is an agent that shows its steps."""
    with serving("agent-chat", backend, tmp_path_factory.mktemp("data")) as gateway:
        yield gateway


def serving(mode: AppMode, backend: ScriptedBackend, folder: Path) -> GatewayServer:
    """A gateway whose app is the built-in one, with all that can be switched on."""
    suggestions = {"enabled": True, "composition": small(SUGGEST)}
    config = {**default_app(mode).model_dump(mode="json"), "suggested_questions_after_answer": suggestions}
    (folder / "app.yaml").write_text(yaml.safe_dump(config))
    return GatewayServer(folder, backend_url=backend.url, app_file=folder / "app.yaml")
