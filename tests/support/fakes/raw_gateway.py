"""A gateway on a bare socket, in threads: what it answers is given byte by byte, one reply per request."""

import json
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

BOUND: Final = 20.0
TASK: Final = "0b0e2a4e-6f0f-4c39-9d3c-6f3f2f1f5a01"


@dataclass(frozen=True)
class Reply:
    """The bytes of a response. Behind them the connection ends, or stays open and is silent."""

    raw: bytes
    is_silent: bool = False


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


def reply(status: int, body: Any = None, **headers: str) -> Reply:
    """A whole response, of JSON unless the body is bytes. Headers are named with underscores."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Made up", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Reply("\r\n".join(lines).encode() + b"\r\n\r\n" + content)


def streamed(frames: bytes, *, is_silent: bool = False, **headers: str) -> Reply:
    """An event stream whose length is not told, as old proxies pass it on."""
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Reply("\r\n".join(lines).encode() + b"\r\n\r\n" + frames, is_silent)


def event(name: str, position: int, **fields: Any) -> dict[str, Any]:
    """A turn event with the fields that all have."""
    common = {"conversation_id": "c", "message_id": "m", "created_at": 1, "task_id": TASK}
    return {"event": name, **common, "event_id": position, **fields}


def frame(payload: dict[str, Any], end: bytes = b"\n") -> bytes:
    """An event as SSE, in raw UTF-8 and with these line ends."""
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + end + end


class RawGateway:
    """Answers its first requests with these replies, and the others with the last one."""

    def __init__(self, *replies: Reply) -> None:
        self._replies: Sequence[Reply] = replies
        self.asked: list[Asked] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(BOUND)
            with suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            line, *heads = iter(lambda: lines.readline().decode().strip(), "")
            headers = {
                name.lower(): value.strip() for name, _, value in (head.partition(":") for head in heads)
            }
            body = lines.read(int(headers.get("content-length", "0")))
        answer = self._replies[min(len(self.asked), len(self._replies) - 1)]
        self.asked.append(Asked(line.removesuffix(" HTTP/1.1"), headers, body))
        connection.sendall(answer.raw)
        if answer.is_silent:
            self._open.append(connection)
        else:
            connection.close()
