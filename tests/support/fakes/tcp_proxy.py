"""A proxy between a client and a server that can be cut: an outage without stopping the server."""

import asyncio
import struct
import threading
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from sqlalchemy import make_url

from tests.support.ports import hold_port

Target = str | tuple[str, int]
"""Path of a Unix socket, or host and port."""

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]

POSTGRES_PORT: Final = 5432
SSL_REQUEST: Final = 80877103
"""What a client may ask before its first message."""
STATEMENT: Final = b"__asyncpg_stmt"
"""In the message with which the driver executes a prepared statement."""


class TcpProxy:
    """Listens on a port of 127.0.0.1 and passes bytes on to a TCP port or a Unix socket.

    Its first connections end after as many bytes from the server as `cuts` says, one number for each.
    """

    def __init__(self, target: Target, cuts: Sequence[int] = ()) -> None:
        self._held = hold_port()
        self.port: int = self._held.getsockname()[1]
        """No other program gets the port while it is cut."""
        self._target = target
        self._cuts = cuts
        self._sent: list[bytearray] = []
        self._connected = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._marker = b""
        self._marked: set[asyncio.Event] = set()
        self._later: int | None = None
        self._in_transaction: set[asyncio.Event] = set()
        self._flowing = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self._held.close()

    @property
    def url(self) -> str:
        """Where an HTTP client finds the server by way of the proxy."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def heads(self) -> list[str]:
        """First lines and headers of all HTTP requests, in order and in lower case."""
        heads: list[str] = []
        for sent in self._sent:
            for part in bytes(sent).split(b"\r\n\r\n"):
                text = part.decode("latin-1")
                if text.split("\r\n")[0].endswith("HTTP/1.1"):
                    heads.append(text.lower())
        return heads

    @property
    def round_trips(self) -> int:
        """How often clients of Postgres have waited for the server: their Sync and Query messages."""
        return sum(_round_trips(bytes(sent)) for sent in self._sent)

    def wait_for_connections(self, count: int, seconds: float = 60) -> None:
        """Until so many connections were made, cut ones too."""
        with self._connected:
            assert self._connected.wait_for(lambda: len(self._sent) >= count, seconds), "too few connections"

    def open(self) -> None:
        """Listen, always on the same port; nothing happens when it does."""
        self._do(self._open())

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._do(self._cut())

    def cut_next(self, cuts: Sequence[int]) -> None:
        """Break all connections, and the next ones after as many bytes from the server as this says."""
        self.cut()
        self._cuts = [*[0] * len(self._sent), *cuts]
        self.open()

    def point_at(self, target: Target) -> None:
        """Pass new connections on to another server."""
        self._target = target

    def freeze(self) -> None:
        """No byte goes either way until `cut`; connections stay open and are accepted."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def lose_commit(self, of: bytes, later: int = 0) -> None:
        """Pass on a commit to Postgres, and break the connection instead of answering.

        It is that of the next transaction with the bytes `of` in it, or the so many-th after it. A statement
        outside of a transaction is one itself.
        """
        self._marker, self._later = of, later

    def _do(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(5)

    async def _open(self) -> None:
        if self._server is not None:
            return
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flowing.set()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self) -> None:
        await self._cut()
        # What was accepted a moment before the cut has no connection to break yet.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            # It was accepted a moment before the cut.
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        sent = bytearray()
        with self._connected:
            left = self._cuts[len(self._sent)] if len(self._sent) < len(self._cuts) else None
            self._sent.append(sent)
            self._connected.notify_all()
        try:
            with suppress(OSError):
                there = await self._connect()
                self._writers.add(there[1])
                mute = asyncio.Event()
                await asyncio.gather(
                    self._forth(reader, there[1], mute, sent), self._back(there[0], writer, mute, left)
                )
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _forth(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mute: asyncio.Event,
        sent: bytearray,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                sent += data
                if self._is_lost(data, mute):
                    mute.set()
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()

    def _is_lost(self, data: bytes, connection: asyncio.Event) -> bool:
        commits = self._commits(data, connection)
        if self._later is None:
            return False
        if self._marker and self._marker in data:
            self._marked.add(connection)
        if not commits or (self._marker and connection not in self._marked):
            return False
        # From here on every connection counts.
        self._marker = b""
        self._later -= 1
        if self._later >= 0:
            return False
        self._later = None
        return True

    def _commits(self, data: bytes, connection: asyncio.Event) -> bool:
        if b"BEGIN" in data:
            self._in_transaction.add(connection)
        elif connection not in self._in_transaction:
            return data.startswith(b"B\0") and STATEMENT in data
        elif b"COMMIT" in data or b"ROLLBACK" in data:
            self._in_transaction.discard(connection)
        return b"COMMIT" in data

    async def _back(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mute: asyncio.Event,
        left: int | None,
    ) -> None:
        with suppress(OSError):
            while left != 0 and (data := await reader.read(65536 if left is None else left)):
                if mute.is_set():
                    break
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
                left = None if left is None else left - len(data)
        with suppress(OSError):
            writer.transport.abort() if mute.is_set() else writer.close()

    async def _connect(self) -> Pipe:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)


def _round_trips(sent: bytes) -> int:
    """The Sync and Query messages in what a client of Postgres has sent, after its first message."""
    count, at = 0, 0
    while at + 8 <= len(sent):
        size, code = struct.unpack_from("!ii", sent, at)
        at += size
        if code != SSL_REQUEST:
            break
    while at + 5 <= len(sent):
        kind, (size,) = sent[at : at + 1], struct.unpack_from("!i", sent, at + 1)
        count += kind in (b"S", b"Q")
        at += 1 + size
    return count


def http_proxy(url: str, cuts: Sequence[int]) -> TcpProxy:
    """A proxy in front of the HTTP server of this URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return TcpProxy((parts.hostname, parts.port), cuts)


def postgres_proxy(url: str) -> TcpProxy:
    """A proxy in front of the Postgres server of this URL."""
    parsed = make_url(url)
    host = parsed.query.get("host") or parsed.host or "127.0.0.1"
    assert isinstance(host, str)
    port = parsed.port or POSTGRES_PORT
    return TcpProxy(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))


def through(proxy: TcpProxy, url: str) -> str:
    """The URL of the same database, by way of the proxy."""
    parsed = make_url(url).set(host="127.0.0.1", port=proxy.port)
    return parsed.difference_update_query(["host"]).render_as_string(hide_password=False)
