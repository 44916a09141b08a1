from collections.abc import Iterator

import pytest

from tests.support.agents import Agents, agents_of
from tests.support.fakes.mcp_server import COMMAND
from tests.support.fakes.model_server import ModelServer, serving
from tests.support.json_type import Json


@pytest.fixture(scope="session")
def provider() -> Iterator[ModelServer]:
    with serving() as provider:
        yield provider


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, provider: ModelServer) -> Iterator[Agents]:
    """A gateway with the built-in agent, for tests that change nothing in it."""
    with agents_of(tmp_path_factory.mktemp("agents"), provider) as agents:
        yield agents


@pytest.fixture
def odd_server() -> Json:
    """What an app says to use the odd MCP server of the tests."""
    return {"command": COMMAND}
