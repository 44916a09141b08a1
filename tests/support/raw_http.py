"""Bytes on a bare socket, and a server of the project with the smallest of applications behind it."""

import asyncio
import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import uvicorn
from typing_extensions import override

from agent_gateway.limits import DEFAULTS, ServerLimits
from agent_gateway.server.config import server_config
from agent_gateway.server.connection import Connection
from agent_gateway.server.listener import Loop
from tests.support.gateway_server import BOUND, wait_until


class Seen(NamedTuple):
    """A request as the application had it."""

    method: str
    path: str
    body: bytes
    whole: bool
    """False for one whose client went away before its end."""


class Recorder:
    """Answers each request with what it was.

    `/early` before it reads the body, `/wait` once `gate` is open, `/hold` the same before it reads the
    body, `/big` with 8 MB.
    """

    BIG = 8 * 1024 * 1024

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.passed: list[str] = []
        """`X-Passed` of all requests, which proxies set; empty for what no proxy has passed on."""
        self.begun = 0
        self.ended = 0
        self.gate = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.begun += 1
        passed = b",".join(value for name, value in scope["headers"] if name == b"x-passed").decode()
        self.passed.append(passed)
        try:
            await self._answer(scope, passed, receive, send)
        finally:
            self.ended += 1

    async def _answer(self, scope: Any, passed: str, receive: Any, send: Any) -> None:
        if scope["path"] == "/hold":
            await asyncio.to_thread(self.gate.wait, BOUND)
        body, more = b"", scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.seen.append(Seen(scope["method"], scope["path"], body, whole=False))
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append(Seen(scope["method"], scope["path"], body, whole=True))
        if scope["path"] == "/wait":
            await asyncio.to_thread(self.gate.wait, BOUND)
        text = {"method": scope["method"], "path": scope["path"], "size": len(body)}
        if passed:
            text["passed"] = passed
        content = b"x" * self.BIG if scope["path"] == "/big" else json.dumps(text).encode()
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": content})


class _Loop(Loop):
    """The server's event loop, with a clock that may be `ahead` of the real one."""

    ahead = 0.0

    @override
    def time(self) -> float:
        return super().time() + self.ahead


class RecordingServer:
    """The server of this project with a Recorder behind it, in a thread."""

    def __init__(self, limits: ServerLimits = DEFAULTS.server) -> None:
        self.app = Recorder()
        self.server = uvicorn.Server(server_config(self.app, limits))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            self._loop: Any = runner.get_loop()
            runner.run(self.server.serve([self._socket]))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.app.gate.set()
        self.server.should_exit = True
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        found: list[Any] = list(self.server.server_state.connections)
        return found

    @property
    def held(self) -> int:
        """Bytes that the server holds for its clients."""
        return sum(
            len(one._buffer) + (len(one._exchange.body) if one._exchange else 0) for one in self.connections
        )

    def pass_time(self, seconds: float) -> None:
        """So much time passes for the server, at once; it looks at its connections just before and after."""
        for ahead in (0.0, seconds):
            self._loop.ahead += ahead
            now = self._loop.time()
            wait_until(lambda now=now: all(one._looked > now for one in self.connections))

    @contextmanager
    def client(self) -> Generator["Client"]:
        """A client that has sent nothing."""
        with Client(self.port) as client:
            yield client


class Answer(NamedTuple):
    """One response, parsed as strictly as its framing allows."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


class Client:
    """A bare socket, to a port or to the path of a Unix socket, that can read responses."""

    def __init__(self, address: int | str) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(BOUND)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(("127.0.0.1", address), timeout=BOUND)
        self._read = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send each piece on its own."""
        for piece in pieces:
            self.socket.sendall(piece)

    def flood(self, piece: bytes, most: int) -> int:
        """Send the piece until the server has had enough; how many bytes it was sent."""
        sent = 0
        try:
            while sent < most:
                self.socket.sendall(piece)
                sent += len(piece)
        except (ConnectionError, TimeoutError):
            pass
        return sent

    def answer(self, method: str = "GET") -> Answer:
        """Read the next response, and nothing that follows it."""
        status = 100
        headers: dict[str, str] = {}
        while status == 100:
            line = self._read.readline()
            assert line.startswith(b"HTTP/1.1 "), line
            status = int(line.split()[1])
            headers = {}
            while (line := self._read.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
        return Answer(status, headers, self._body(headers) if method != "HEAD" else b"")

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._read.read(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return self._read.read()
        body = b""
        while size := int(self._read.readline(), 16):
            body += self._read.read(size)
            assert self._read.read(2) == b"\r\n"
        assert self._read.readline() == b"\r\n"
        return body

    def rest(self) -> bytes:
        """All until the server closes; fails when it does not."""
        try:
            return self._read.read()
        except ConnectionError:
            return b""

    def is_closed(self) -> bool:
        """Wait until the server closes; True when it sent nothing before."""
        return self.rest() == b""


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """The bytes of a request; a body without a header about it gets its length."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A body in these chunks."""
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join([*parts, b"0\r\n", trailers, b"\r\n"])
