"""A real gateway on a real uvicorn on port 0, in a thread of its own, for tests over HTTP."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import httpx
import uvicorn

from agent_gateway.app import create_app
from agent_gateway.limits import DEFAULTS, DrainLimits, Limits, MaintenanceIntervals, RequestLimits
from agent_gateway.routes.dependencies.state import AppState
from agent_gateway.server.config import server_config
from agent_gateway.server.listener import Loop
from agent_gateway.settings import Settings

API_KEY = "app-test-key"
SECRET_KEY = "test-secret-as-long-as-they-have-to-be"
"""The secret of every gateway: keys are hashed with it."""
BOUND = 20.0
"""Seconds after which any wait in a test has failed."""
TAKEN_OVER = Limits(
    drain=DrainLimits(adopt_seconds=60.0), maintenance=MaintenanceIntervals(sweep_seconds=0.1)
)
"""A gateway that leaves waits until another one adopts its turns, and none waits long to adopt them."""
EARLY_FAILURES_HAVE_A_STATUS = RequestLimits(first_event_seconds=BOUND)
"""A turn that fails before it says anything has its status, however slow the machine is."""
DELETED_IS_GONE = Limits(requests=RequestLimits(deleted_check_seconds=BOUND))
"""Whoever reads a deleted turn is refused, however slow the database is."""
NO_KEY_IS_REMEMBERED = Limits(requests=RequestLimits(key_seconds=0.0))
"""Each request asks the database about its key and its app."""


_first_request = threading.Lock()


class GatewayServer:
    """A running gateway; a context manager. `url` is its address, `gateway` its inside."""

    def __init__(self, data_dir: Path, *, limits: Limits = DEFAULTS, **settings: Any) -> None:
        given: dict[str, Any] = {
            "data_dir": data_dir,
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
            "host": "127.0.0.1",
            "port": 0,
            "drain_seconds": 5.0,
            "backend_reconnect_seconds": 1.0,
            **settings,
        }
        # Not from the environment: a developer's .env must not change what is tested.
        self.settings = Settings(_env_file=None, **given)
        self.app = create_app(self.settings, limits=limits)
        self.server = uvicorn.Server(server_config(self.app, limits.server, host="127.0.0.1", port=0))
        self._thread = threading.Thread(target=self._serve, name="gateway", daemon=True)

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self.server.serve()

        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(serve())

    def run(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this in the event loop of the gateway, and wait for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.server.started or not self._thread.is_alive())
        assert self.server.started, "the gateway did not start"
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # The framework makes its models of all routes with the first request, and cannot do so in the
        # threads of two servers at once.
        with _first_request:
            httpx.get(f"{self.url}/nowhere", timeout=BOUND, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Stop as SIGTERM does: turns that still run after `drain_seconds` are interrupted."""
        if not self._thread.is_alive():
            return
        self.begin_stop(drain_seconds)
        self._thread.join(BOUND + drain_seconds)
        assert not self._thread.is_alive(), "the gateway did not stop"

    def begin_stop(self, drain_seconds: float) -> None:
        """Do as SIGTERM does, without waiting for the end."""

        async def drain_then_exit() -> None:
            await self.gateway.live.drain(drain_seconds)
            self.server.should_exit = True

        stopping = drain_then_exit()
        try:
            asyncio.run_coroutine_threadsafe(stopping, self._loop)
        except RuntimeError:
            # It has just ended by itself.
            stopping.close()

    @property
    def gateway(self) -> AppState:
        """The inside of the running gateway."""
        gateway: AppState = self.app.state.gateway
        return gateway

    @contextmanager
    def request_limits(self, limits: RequestLimits) -> Generator[None]:
        """For a while, other bounds of requests; those of API keys stay."""
        gateway = self.gateway
        self.app.state.gateway = replace(gateway, limits=limits)
        try:
            yield
        finally:
            self.app.state.gateway = gateway

    def client(self, key: str = API_KEY, **kwargs: Any) -> httpx.Client:
        """An HTTP client with this key; close it."""
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=BOUND, trust_env=False, **kwargs)


class StartGateway(Protocol):
    """Starts a gateway on the test's backend and database, with other limits and settings where given."""

    def __call__(self, *, limits: Limits = DEFAULTS, **settings: Any) -> GatewayServer: ...


def wait_until(condition: Callable[[], object], bound: float = BOUND) -> None:
    """Wait for what happens in another thread or process; fails when it takes too long."""
    end = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def answer_of(events: list[dict[str, Any]]) -> str:
    """The final text of a client that appends deltas."""
    text = ""
    for event in events:
        if event["event"] in ("message", "agent_message"):
            text += event["answer"]
        elif event["event"] == "message_replace":
            text = event["answer"]
    return text


def gone(server: GatewayServer) -> None:
    """Wait until a draining gateway has ended."""
    server._thread.join(BOUND)
    assert not server._thread.is_alive()


def is_ready(client: httpx.Client) -> bool:
    """Whether a gateway takes new turns; False when it does not even answer."""
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
