"""A client of the API over the standard library, which notes when bytes arrive."""

import http.client
import json
import re
import ssl
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import Any, Final
from urllib.parse import quote, urlsplit

from agent_gateway.errors import ConfigError

READ_SECONDS: Final = 30.0
"""How long one read may take, and the opening of a connection."""
READ_BYTES: Final = 65536


class Broken(Exception):
    """No answer, or only a part of it; the text says why."""


class Silent(Broken):
    """Nothing came for READ_SECONDS."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    headers: Message
    body: bytes
    started: float
    """When its head was there, by the monotonic clock."""

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object of the body; empty when it has none."""
        with suppress(ValueError):
            found = json.loads(self.body)
            if isinstance(found, dict):
                return found
        return {}

    @property
    def told(self) -> str:
        """The status, with the code of the gateway's error if it is one."""
        code = self.json.get("code")
        return (
            f"{self.status} {code}"
            if isinstance(code, str) and re.fullmatch(r"\w+", code)
            else f"{self.status}"
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """An event of a stream, byte by byte."""

    raw: bytes
    id: int
    at: float
    """When it was complete, by the monotonic clock."""

    @property
    def event(self) -> dict[str, Any]:
        """Its JSON."""
        [line] = [line for line in self.raw.split(b"\n") if line.startswith(b"data:")][:1]
        found: dict[str, Any] = json.loads(line[5:])
        return found

    @property
    def is_last(self) -> bool:
        """Whether it ends its turn."""
        return self.event.get("event") in ("message_end", "error")


@dataclass
class Stream:
    """An event stream that is being read."""

    answer: http.client.HTTPResponse
    head_at: float
    first_at: float | None = None
    """When its first bytes came, which are not part of an event."""
    last_at: float = 0.0
    silence: float = 0.0
    """The longest time between two reads."""
    reads: list[float] = field(default_factory=list)
    """When bytes with events came."""
    end: float = 0.0
    """Until when it is read; may be changed meanwhile."""

    def frames(self, end: float) -> Iterator[Frame]:
        """The events up to the last one, or to the time `end`. Raises Broken when the stream is cut."""
        rest = b""
        self.end = end
        self.last_at = self.head_at
        while time.monotonic() < self.end:
            data = self._read()
            if not data:
                raise Broken(f"the stream was cut after {time.monotonic() - self.head_at:.1f} s")
            *blocks, rest = (rest + data).split(b"\n\n")
            found = frames_in(blocks, self.last_at)
            if found:
                self.reads.append(self.last_at)
            for frame in found:
                yield frame
                if frame.is_last:
                    return

    def _read(self) -> bytes:
        with _mapped():
            data = self.answer.read1(READ_BYTES)
        now = time.monotonic()
        self.first_at = self.first_at or now
        self.silence = max(self.silence, now - self.last_at)
        self.last_at = now
        return data


def frames_in(blocks: Iterable[bytes], at: float = 0.0) -> list[Frame]:
    """The events among the blocks of a stream, without pings and the like."""
    found = ((block, re.search(rb"^id: (\d+)$", block, re.MULTILINE)) for block in blocks)
    return [Frame(block, int(id_[1]), at) for block, id_ in found if id_ and b"data:" in block]


@dataclass(frozen=True)
class Gateway:
    """A deployment, and who calls it."""

    scheme: str
    host: str
    port: int | None
    prefix: str
    user: str
    key: str = field(repr=False)

    @classmethod
    def at(cls, url: str, key: str, user: str) -> "Gateway":
        """The deployment at a base URL, with or without a path. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError:
            parts, port, host = urlsplit(""), None, None
        if not host or parts.scheme not in ("http", "https") or parts.username is not None:
            raise ConfigError("--url is no URL like https://example.com/path")
        if not re.fullmatch(r"[!-~]+", key):
            raise ConfigError("--key holds spaces or letters that no header carries, or nothing")
        return cls(parts.scheme, host, port, parts.path.rstrip("/"), user, key)

    def connect(self) -> http.client.HTTPConnection:
        """A connection, not open yet; the caller closes it."""
        if self.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=READ_SECONDS, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=READ_SECONDS)

    @contextmanager
    def connection(self) -> Generator[http.client.HTTPConnection]:
        """A connection of one's own."""
        opened = self.connect()
        try:
            yield opened
        finally:
            opened.close()

    def open(self, connection: http.client.HTTPConnection) -> Mapping[str, Any]:
        """Open a connection; returns the certificate of the server, if there is one. Raises Broken."""
        with _mapped():
            connection.connect()
        if isinstance(connection.sock, ssl.SSLSocket):
            return connection.sock.getpeercert() or {}
        return {}

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        on: http.client.HTTPConnection | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """A request and its whole response, on a connection of its own by default. Raises Broken."""
        connection = on or self.connect()
        try:
            with _mapped():
                response = self._send(connection, method, path, body, key, headers)
                started = time.monotonic()
                return Answer(response.status, response.headers, response.read(), started)
        finally:
            if on is None:
                connection.close()

    def probe(self, path: str, on: http.client.HTTPConnection | None = None) -> Answer:
        """A probe, which is not below `/v1` as the API may be. Raises Broken."""
        beside = replace(self, prefix=self.prefix.removesuffix("/v1"))
        return beside.ask("GET", path, on=on)

    @contextmanager
    def stream(
        self, method: str, path: str, body: dict[str, Any] | None = None, after: int | None = None
    ) -> Generator[Stream]:
        """An event stream; leaving cuts it. Raises Broken, also for any answer that is no such stream."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.connection() as connection:
            with _mapped():
                response = self._send(connection, method, path, body, None, headers)
                head_at = time.monotonic()
                if response.status != http.client.OK:
                    answer = Answer(response.status, response.headers, response.read(), head_at)
                    raise Broken(f"{method} {path.partition('?')[0]} is answered with {answer.told}")
            yield Stream(response, head_at)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        key: str | None,
        headers: dict[str, str] | None,
    ) -> http.client.HTTPResponse:
        given = {"Authorization": f"Bearer {self.key if key is None else key}", **(headers or {})}
        content = None if body is None else json.dumps({"user": self.user, **body})
        if content is not None:
            given["Content-Type"] = "application/json"
        connection.request(method, f"{self.prefix}{path}", content, given)
        return connection.getresponse()

    @property
    def as_query(self) -> str:
        """The user, as a parameter of a URL."""
        return f"user={quote(self.user, safe='')}"


@contextmanager
def _mapped() -> Generator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Broken(f"the certificate is not accepted: {error.verify_message}") from None
    except TimeoutError:
        raise Silent(f"no byte within {READ_SECONDS:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_reason(error)) from None


def _reason(error: Exception) -> str:
    """What the system says; what a server sent stays out."""
    return getattr(error, "strerror", None) or type(error).__name__
