"""A backend, or a proxy before it, whose answers are not what the run protocol says: the turn fails, visibly.

The log says what was odd, and no answer is ever read as nothing. A server on a bare socket plays the backend.
"""

import asyncio
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from tests.support.chat import Chat
from tests.support.gateway_server import BOUND, GatewayServer, wait_until

SECRET = "sk-do-not-show"
HTML = f"<html><body>Welcome {SECRET}</body></html>".encode()
RUN = b'{"run_id":"run-1","status":"running"}'


class Answer(NamedTuple):
    """Status, headers and body of an answer; its connection is closed behind it."""

    status: int = 200
    body: bytes | list[bytes] = b""
    headers: tuple[tuple[str, str], ...] = ()


def event(number: int, kind: str, data: Any, delta: str | None = None) -> bytes:
    fields = {"id": f"{number}-0", "run_id": "run-1", "type": kind, "data": data}
    if delta is not None:
        fields["agent_message_delta"] = delta
    return f"id: {number}-0\nevent: {kind}\ndata: {json.dumps(fields)}\n\n".encode()


FRAMES = [
    event(1, "run_started", {}),
    event(2, "pydantic_ai_event", {"event_kind": "part_delta"}, "So "),
    event(3, "pydantic_ai_event", {"event_kind": "part_delta"}, "far \U0001f600"),
    event(4, "run_succeeded", {"output": "So far \U0001f600", "session_snapshot": None}),
]
SSE = ("Content-Type", "text/event-stream")


class OddBackend:
    """Answers POST /runs and the event stream with given bytes, on a socket of its own."""

    def __init__(self, create: Answer, stream: Answer) -> None:
        self._create, self._stream = create, stream
        self.requests: list[str] = []
        self.encodings: set[str] = set()
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    def count(self, request: str) -> int:
        return self.requests.count(request)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._listener)
        async with server:
            await asyncio.to_thread(self._stopped.wait)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        await reader.readexactly(int(fields.get("content-length", "0")))
        method, path, _ = lines[0].split(" ")
        self.requests.append(f"{method} {path}")
        self.encodings.add(fields.get("accept-encoding", ""))
        answer = Answer(404)
        if (method, path) == ("POST", "/runs"):
            answer = self._create
        elif "/events/sse" in path:
            answer = self._stream
        elif path.endswith("/cancel"):
            answer = Answer(200, b'{"run_id":"run-1","status":"cancelled"}')
        pieces = answer.body if isinstance(answer.body, list) else [answer.body]
        told = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        writer.write(f"HTTP/1.1 {answer.status} Odd\r\n{told}Connection: close\r\n\r\n".encode())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()


@contextmanager
def gateway_at(backend: OddBackend, folder: Path) -> Generator[tuple[GatewayServer, Chat]]:
    settings: dict[str, Any] = {"backend_reconnect_seconds": 0.3, "idle_timeout_seconds": 10.0}
    with (
        backend,
        GatewayServer(folder, backend_url=backend.url, **settings) as server,
        server.client() as client,
    ):
        yield server, Chat(client, "ada")
        wait_until(lambda: not server.gateway.live.running())


def zipped(*, level: int = 9) -> list[bytes]:
    """The frames as a proxy compresses them: each flushed, so that it can be read when it is sent."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return [packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH) for frame in FRAMES] + [packer.flush()]


GOOD = {
    "plain": Answer(200, FRAMES, (SSE,)),
    "capital letters": Answer(200, FRAMES, (("Content-Type", "Text/Event-Stream; Charset=UTF-8"),)),
    "one gzip": Answer(200, gzip.compress(b"".join(FRAMES)), (SSE, ("Content-Encoding", "gzip"))),
    "gzip, flushed": Answer(200, zipped(), (SSE, ("Content-Encoding", "GZIP"))),
    "gzip in single bytes": Answer(
        200, [bytes([byte]) for byte in b"".join(zipped())], (SSE, ("Content-Encoding", "gzip"))
    ),
    "deflate": Answer(200, zlib.compress(b"".join(FRAMES)), (SSE, ("Content-Encoding", "deflate"))),
    "identity": Answer(200, FRAMES, (SSE, ("Content-Encoding", "identity"))),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_event_stream_is_read_with_any_content_encoding(tmp_path: Path, name: str) -> None:
    """The gateway asks for identity only, but it reads the stream of a proxy that compresses anyway."""
    backend = OddBackend(Answer(202, RUN), GOOD[name])
    with gateway_at(backend, tmp_path) as (_, chat):
        heard = chat.streaming()
        assert [event.get("answer") for event in heard.events[:-1]] == ["So ", "far \U0001f600"]
        assert heard.last["event"] == "message_end"
        assert chat.message(heard.conversation_id)["answer"] == "So far \U0001f600"
    assert backend.encodings == {"identity"}
    assert backend.count("POST /runs") == 1
    assert backend.count("GET /runs/run-1/events/sse") == 1


BAD_STREAMS = {
    "brotli": (
        Answer(200, b"\x8b\x02\x80" * 9, (SSE, ("Content-Encoding", "br"))),
        "internal_server_error",
        "encoding 'br'",
    ),
    "gzip by its old name": (
        Answer(200, zipped(), (SSE, ("Content-Encoding", "x-gzip"))),
        "internal_server_error",
        "encoding 'x-gzip'",
    ),
    "two encodings": (
        Answer(200, b"x", (SSE, ("Content-Encoding", "gzip, br"))),
        "internal_server_error",
        "encoding 'gzip, br'",
    ),
    "invalid gzip": (
        Answer(200, b"".join(FRAMES), (SSE, ("Content-Encoding", "gzip"))),
        "internal_server_error",
        "cannot be unpacked",
    ),
    "html": (
        Answer(200, HTML, (("Content-Type", "text/html"),)),
        "internal_server_error",
        "not an event stream but 'text/html'",
    ),
    "no content type": (Answer(200, b"".join(FRAMES)), "internal_server_error", "not an event stream"),
    "a secret for a content type": (
        Answer(200, HTML, (("Content-Type", f"x {SECRET}"),)),
        "internal_server_error",
        "not an event stream",
    ),
    "html as an event stream": (Answer(200, HTML, (SSE,)), "service_unavailable", "ended before the run"),
    "204": (Answer(204), "internal_server_error", "BackendRefused 204"),
    "a redirect": (
        Answer(302, HTML, (("Location", "http://127.0.0.1:1/login"),)),
        "internal_server_error",
        "302 (a redirect, which is not followed",
    ),
    "401": (Answer(401, HTML), "backend_refused", "BackendRefused 401"),
    "429": (Answer(429, HTML), "service_unavailable", "BackendRefused 429"),
    "503": (Answer(503, HTML), "service_unavailable", "BackendRefused 503"),
    "json": (Answer(200, RUN, (("Content-Type", "application/json"),)), "internal_server_error", "json"),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_response_that_is_no_event_stream_fails_the_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    stream, code, said = BAD_STREAMS[name]
    backend = OddBackend(Answer(202, RUN), stream)
    with gateway_at(backend, tmp_path) as (_, chat):
        response = chat.post(response_mode="blocking")
        assert response.json()["code"] == code
    assert backend.count("POST /runs") == 1
    [line] = [one.__dict__ for one in caplog.records if one.name == "agent_gateway.turns.end_report"]
    assert said in line["cause"]
    assert SECRET not in caplog.text
    assert SECRET not in response.text


BAD_CREATES = {
    "html": (Answer(200, HTML, (("Content-Type", "text/html"),)), "does not follow the run protocol"),
    "204": (Answer(204), "BackendRefused 204"),
    "a redirect": (Answer(307, b"", (("Location", "/elsewhere/runs"),)), "307 (a redirect"),
    "a number for an id": (Answer(202, b'{"run_id":7}'), "does not follow the run protocol"),
    "an empty id": (Answer(202, b'{"run_id":""}'), "the new run has no id"),
    "an id that cannot be kept": (Answer(202, b'{"run_id":"a\\u0000b"}'), "the new run has no id"),
    "a long id": (Answer(202, b'{"run_id":"%s"}' % (b"x" * 9_000)), "the new run has no id"),
    "a list": (Answer(202, b"[]"), "does not follow the run protocol"),
    "zipped html": (
        Answer(202, gzip.compress(HTML), (("Content-Encoding", "gzip"),)),
        "does not follow the run protocol",
    ),
    "invalid gzip": (Answer(202, RUN, (("Content-Encoding", "gzip"),)), "cannot be unpacked"),
}


@pytest.mark.parametrize("name", BAD_CREATES)
def test_a_malformed_run_response_fails_the_turn_without_a_retry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    create, said = BAD_CREATES[name]
    backend = OddBackend(create, GOOD["plain"])
    with gateway_at(backend, tmp_path) as (_, chat):
        response = chat.post(response_mode="blocking")
        assert (response.status_code, response.json()["code"]) == (500, "internal_server_error")
    assert backend.count("POST /runs") == 1
    [line] = [one.__dict__ for one in caplog.records if one.name == "agent_gateway.turns.end_report"]
    assert said in line["cause"]
    assert SECRET not in caplog.text + response.text


def test_a_compressed_run_response_is_read(tmp_path: Path) -> None:
    backend = OddBackend(Answer(202, gzip.compress(RUN), (("Content-Encoding", "gzip"),)), GOOD["plain"])
    with gateway_at(backend, tmp_path) as (_, chat):
        assert chat.blocking()["answer"] == "So far \U0001f600"


def test_a_packed_refusal_is_judged_by_its_status(tmp_path: Path) -> None:
    """A proxy packs its page of an error, or says so and does not."""
    refusal = Answer(503, b"no gzip at all", (("Content-Encoding", "gzip"),))
    backend = OddBackend(refusal, GOOD["plain"])
    with gateway_at(backend, tmp_path) as (_, chat):
        response = chat.post(response_mode="blocking")
        assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
    assert backend.count("POST /runs") > 1
