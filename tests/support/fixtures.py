"""Gateways for tests over HTTP: one per database for the whole run, others when a test needs its own.

Starting a gateway takes half a second, so most tests share `server`; each has a user of its own, who
sees nothing of the others. A test that changes settings, kills or restarts a gateway makes one with
`start_gateway`, on `database_url`. Both run once on SQLite and once on Postgres.
"""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_gateway.apps.config import default_app
from agent_gateway.limits import DEFAULTS, Limits
from tests.support.chat import Chat
from tests.support.databases import KINDS, migrated_database
from tests.support.fakes.script import Gate, echo
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet
from tests.support.gateway_server import (
    DELETED_IS_GONE,
    EARLY_FAILURES_HAVE_A_STATUS,
    TAKEN_OVER,
    GatewayServer,
    StartGateway,
    wait_until,
)
from tests.support.outbox import empty_outbox, is_cleaning_up
from tests.support.ports import hold_port
from tests.support.rows import add_app


@pytest.fixture(scope="session")
def shared_fake() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        yield backend


@pytest.fixture
def fake(shared_fake: ScriptedBackend) -> Iterator[ScriptedBackend]:
    """The backend of `server` and `start_gateway`: echoes, until the test says something else."""
    shared_fake.requests.clear()
    shared_fake.cancels.clear()
    shared_fake.streams.clear()
    yield shared_fake
    shared_fake.script = echo
    shared_fake.broken_streams = 0
    shared_fake._scripts.clear()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A place where a run waits; opened at the latest when the test is over."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture(scope="session", params=KINDS)
def shared_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def shared_server(
    request: pytest.FixtureRequest,
    shared_kind: str,
    shared_fake: ScriptedBackend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayServer]:
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        url = stack.enter_context(migrated_database(request, shared_kind, folder))
        yield stack.enter_context(
            GatewayServer(
                folder,
                limits=DELETED_IS_GONE,
                database_url=url,
                backend_url=shared_fake.url,
                ping_seconds=1.0,
                # A run that fails in a test must not block it.
                idle_timeout_seconds=15.0,
            )
        )


@pytest.fixture
def server(shared_server: GatewayServer, fake: ScriptedBackend, gate: Gate) -> Iterator[GatewayServer]:
    """The shared gateway on `fake`. After each test all its turns have ended, and nothing is left to do."""
    yield shared_server
    gate.open()
    wait_until(lambda: not shared_server.gateway.live.running())
    empty_outbox(shared_server.settings.resolved_database_url())
    wait_until(lambda: not is_cleaning_up(shared_server))
    empty_outbox(shared_server.settings.resolved_database_url())


@pytest.fixture
def start_gateway(
    fake: ScriptedBackend, gate: Gate, database_url: str, tmp_path: Path
) -> Iterator[StartGateway]:
    """Starts gateways of this test alone. To restart one on the same database, stop the first."""
    with ExitStack() as stack:

        def start(*, limits: Limits = DEFAULTS, **settings: Any) -> GatewayServer:
            given = {"database_url": database_url, "backend_url": fake.url, **settings}
            return stack.enter_context(GatewayServer(tmp_path, limits=limits, **given))

        yield start
        gate.open()


@pytest.fixture
def fleet(fake: ScriptedBackend, gate: Gate, postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Gateways on one Postgres and `fake`."""
    with ExitStack() as stack:
        yield Fleet(stack, postgres_url, fake.url, tmp_path)
        gate.open()


@pytest.fixture
def early_failures_have_a_status(shared_server: GatewayServer) -> Iterator[None]:
    """A turn on `server` that fails before it says anything has its status, however slow the machine is."""
    with shared_server.request_limits(EARLY_FAILURES_HAVE_A_STATUS):
        yield


@pytest.fixture
def no_turn_is_taken_back(fleet: Fleet) -> None:
    """A gateway that leaves waits until another one adopts its turns, and none waits long to adopt them."""
    fleet.limits = TAKEN_OVER


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with hold_port() as held:
        yield held.getsockname()[1]


@pytest.fixture
def user() -> str:
    """An end user that no other test uses."""
    return f"user-{uuid.uuid4()}"


@pytest.fixture
def client(server: GatewayServer) -> Iterator[httpx.Client]:
    """An HTTP client with the app's key."""
    with server.client() as client:
        yield client


@pytest.fixture
def chat(client: httpx.Client, user: str) -> Chat:
    """The client of this test's user at `server`."""
    return Chat(client, user)


@pytest.fixture
def rejecting(server: GatewayServer, user: str) -> Iterator[Chat]:
    """The same for an app of this test's own that refuses a second message: `on_busy: reject`."""
    config = default_app().model_copy(update={"on_busy": "reject"})
    add_app(server.settings.resolved_database_url(), key := f"app-rejecting-{user}", config)
    with server.client(key) as client:
        yield Chat(client, user)
