"""A backend on a bare socket, in the event loop of its test: what it answers is given byte by byte."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.support.fakes.run_frames import RUN

BOUND: Final = 20.0


@dataclass(frozen=True)
class Answer:
    """The bytes of an answer, each of the pieces in a write of its own."""

    pieces: Sequence[bytes] = ()
    close: bool = False
    """Whether the connection ends behind it, or waits for another request."""


NEW_RUN: Final = Answer([b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n" % len(RUN) + RUN])


@dataclass
class Request:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    connection: int
    """Which connection it came on, counted from 1."""
    number: int
    """Which request of its connection it was, counted from 1."""


@dataclass
class RawBackend:
    """Answers POST /runs with `create`, a cancel with `cancel`, and a stream with the next of `streams`.

    An answer that is None never comes.
    """

    streams: list[Answer | None] = field(default_factory=list)
    create: Answer | None = NEW_RUN
    cancel: Answer | None = Answer()
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    port: int = 0
    """Another one once it listens, if it is 0."""

    def __post_init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def lines(self) -> list[str]:
        """Method and path of each request."""
        return [request.line.removesuffix(" HTTP/1.1") for request in self.requests]

    async def until(self, open_connections: int = 0, requests: int = 0) -> None:
        """Wait until exactly so many connections are open, and at least so many requests have come."""
        async with asyncio.timeout(BOUND), self._changed:
            await self._changed.wait_for(
                lambda: self.open == open_connections and len(self.requests) >= requests
            )

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self._notify()
            with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
                await self._converse(reader, writer, self.connections)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            self.open -= 1
            await self._notify()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        number = 0
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
            }
            await reader.readexactly(int(headers.get("content-length", "0")))
            number += 1
            self.requests.append(Request(head[0], headers, connection, number))
            await self._notify()
            answer = self._answer(head[0])
            if answer is None:
                await reader.read()
                return
            for piece in answer.pieces:
                if writer.is_closing():
                    return
                writer.write(piece)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if answer.close:
                writer.close()
                return

    def _answer(self, line: str) -> Answer | None:
        if line.startswith("POST /runs HTTP"):
            return self.create
        if "/events/sse" in line:
            return self.streams.pop(0)
        if "/cancel" in line:
            return self.cancel
        return Answer([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
