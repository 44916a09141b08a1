"""With a thousand readers of one turn, new requests are served, above all probes."""

import asyncio
import resource
import socket
import statistics
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
import uvloop

from agent_gateway.server.config import server_config
from agent_gateway.server.listener import ACCEPT_AT_ONCE, Loop
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, BOUND, wait_until
from tests.support.json_type import Json
from tests.support.raw_http import Client, Recorder, request

pytestmark = pytest.mark.slow

READERS = 1_000
PROBES = 20
FILES = 8_192


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Reader(asyncio.Protocol):
    """Asks for the events of a turn and counts the bytes that come."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self.heard = 0

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)


@contextmanager
def crowd(port: int, path: str) -> Generator[list[Reader]]:
    """Readers in a thread, which read as fast as they can."""
    readers: list[Reader] = []
    over = threading.Event()
    sent = request("GET", path, f"Authorization: Bearer {API_KEY}")

    async def read() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(READERS // 50):
            made = [loop.create_connection(lambda: Reader(sent), "127.0.0.1", port) for _ in range(50)]
            readers.extend(protocol for _, protocol in await asyncio.gather(*made))
        await asyncio.to_thread(over.wait, 120)
        for reader in readers:
            reader.transport.abort()
        await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: uvloop.run(read()), daemon=True)
    thread.start()
    try:
        yield readers
    finally:
        over.set()
        thread.join(BOUND)


@pytest.mark.usefixtures("many_files")
def test_probes_are_answered_while_a_thousand_clients_read(tmp_path: Path) -> None:
    """The demo agent says forty words a second."""
    with GatewayProcess(tmp_path, API_KEY=API_KEY) as process, process.client() as client:
        port = urlsplit(process.url).port or 0
        body: Json = {"query": "count to 9000", "user": "u", "inputs": {}, "response_mode": "background"}
        task_id = client.post("/chat-messages", json=body).json()["task_id"]
        with crowd(port, f"/chat-messages/{task_id}/events?user=u") as readers:
            wait_until(lambda: len(readers) == READERS, 60)
            wait_until(lambda: min(reader.heard for reader in readers) > 2_000, 60)
            before = sum(reader.heard for reader in readers)
            waited: list[float] = []
            for _ in range(PROBES):
                began = time.monotonic()
                with Client(port) as probe:
                    probe.send(request("GET", "/healthz"))
                    assert probe.answer().status == 200
                waited.append(time.monotonic() - began)
                time.sleep(0.1)
            assert sum(reader.heard for reader in readers) - before > READERS * 1_000, (
                "the readers did not read"
            )
    # Before, most of them waited for seconds: in each round of the loop all were served, and one accepted.
    assert statistics.median(waited) < 1.0
    assert max(waited) < 5.0


def test_connections_are_accepted_many_at_a_time() -> None:
    """Counted in rounds of the loop, not in time."""
    count = ACCEPT_AT_ONCE * 3
    rounds: list[int] = []
    server = uvicorn.Server(server_config(Recorder()))
    listening = socket.create_server(("127.0.0.1", 0), backlog=count)
    clients: list[socket.socket] = []

    async def count_rounds() -> None:
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0)
        # Nothing is accepted while this one talks to the system.
        clients.extend(socket.create_connection(listening.getsockname()) for _ in range(count))
        begun = 0
        async with asyncio.timeout(BOUND):
            while len(server.server_state.connections) < count:
                begun += 1
                await asyncio.sleep(0)
        rounds.append(begun)
        server.should_exit = True
        await serving

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(count_rounds())
    for client in clients:
        client.close()
    assert rounds[0] < count / 4
