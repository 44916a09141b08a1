"""1,000 open streams on a database pool of 5: everybody else is answered meanwhile.

On Postgres, where connections can run out; smaller, on both databases, it is I5 in test_invariants.py.
"""

import asyncio
import json
import resource
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.chat import Chat
from tests.support.fakes.script import Gate, Script, delta, echo, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.gateway_server import API_KEY, GatewayServer, StartGateway, wait_until
from tests.support.json_type import Json

pytestmark = pytest.mark.slow

STREAMS = 1_000
FILES = 8_192
"""Each stream has four ends in this process: reader, gateway on both sides, backend."""
AT_ONCE = 50
"""Requests that are under way at the same time while the streams are opened."""


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Reader:
    """A stream over a bare socket."""

    def __init__(self, server: GatewayServer, number: int) -> None:
        self._address = urlsplit(server.url)
        self._number = number
        self.raw = b""

    async def open(self) -> None:
        """Post, and read up to the first piece of the answer."""
        body = {"query": "wait", "user": f"reader-{self._number}", "response_mode": "streaming"}
        content = json.dumps(body)
        self._read, self._write = await asyncio.open_connection(self._address.hostname, self._address.port)
        self._write.write(
            f"POST /chat-messages HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {API_KEY}\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n{content}".encode()
        )
        while b'"answer":"One "' not in self.raw:
            piece = await self._read.read(65536)
            assert piece, self.raw
            self.raw += piece

    async def rest(self) -> None:
        """Read to the end."""
        self.raw += await self._read.read()
        self._write.close()


async def open_all(server: GatewayServer) -> list[Reader]:
    readers = [Reader(server, number) for number in range(STREAMS)]
    slots = asyncio.Semaphore(AT_ONCE)

    async def opened(reader: Reader) -> None:
        async with slots:
            await reader.open()

    async with asyncio.timeout(80):
        await asyncio.gather(*(opened(reader) for reader in readers))
    return readers


def a_turn_of_somebody_else(server: GatewayServer) -> None:
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
        chat = Chat(client, "somebody else")
        answered = chat.blocking("Hi")
        assert answered["answer"] == "You said: Hi."
        assert chat.message(answered["conversation_id"])["answer"] == answered["answer"]


@pytest.mark.anyio
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.usefixtures("many_files")
async def test_a_thousand_open_streams_do_not_delay_other_requests(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate
) -> None:
    def waiting(body: Json) -> Script:
        if query_of(body) == "wait":
            return script(text("One "), gate, delta("two"), succeed())
        return echo(body)

    fake.script = waiting
    server = await asyncio.to_thread(start_gateway, database_pool_size=5)
    readers = await open_all(server)
    assert len(server.gateway.live.running()) == STREAMS
    assert fake.open_streams == STREAMS

    # All are silent now, and hold none of the five connections.
    await asyncio.to_thread(a_turn_of_somebody_else, server)
    assert fake.open_streams == STREAMS
    gate.open()
    async with asyncio.timeout(80):
        await asyncio.gather(*(reader.rest() for reader in readers))
    for reader in readers:
        assert b'"answer":"two"' in reader.raw
        assert reader.raw.count(b'"event":"message_end"') == 1
    await asyncio.to_thread(wait_until, lambda: fake.open_streams == 0)
