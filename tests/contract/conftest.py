"""The OpenAPI document, and one gateway per database for all tests that go over every operation."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_gateway.app import create_app
from agent_gateway.settings import Settings
from tests.support.databases import KINDS, migrated_database
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.operations import World
from tests.support.rows import add_app

OTHER_KEY = "app-other-key"


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    return create_app(Settings.model_construct()).openapi()


@pytest.fixture
def document_folder(document: dict[str, Any], tmp_path: Path) -> Path:
    """A folder with the document in it as openapi.json."""
    (tmp_path / "openapi.json").write_text(json.dumps(document, indent=1))
    return tmp_path


@pytest.fixture(scope="session", params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with ExitStack() as stack:
        url = stack.enter_context(migrated_database(request, request.param, folder))
        backend = stack.enter_context(ScriptedBackend())
        server = stack.enter_context(GatewayServer(folder, database_url=url, backend_url=backend.url))
        add_app(url, OTHER_KEY)
        yield World(
            server,
            client=stack.enter_context(server.client()),
            other=stack.enter_context(server.client(OTHER_KEY)),
            backend=backend,
            nobody=stack.enter_context(httpx.Client(base_url=server.url, trust_env=False)),
        )
