"""Bodies of people without a key, and of clients that go away: they cost nothing and log no error."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from tests.support.fakes.script import Gate, delta, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import API_KEY, GatewayServer, wait_until
from tests.support.raw_http import Client, request

MB = 1024 * 1024
KEYED = f"Authorization: Bearer {API_KEY}"
FORM = "Content-Type: multipart/form-data; boundary=b"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="film.mp4"\r\n\r\n'
ROUTES = ["/chat-messages", "/v1/chat-messages", "/files/upload", "/messages/1/feedbacks", "/audio-to-text"]
WRONG = [(), ("Authorization: Bearer wrong",), ("Authorization: Basic eDp5",), ("Authorization: Bearer",)]


@pytest.fixture
def gateway(fake: ScriptedBackend, tmp_path: Path) -> Iterator[GatewayServer]:
    with GatewayServer(tmp_path, backend_url=fake.url, ping_seconds=0.1) as server:
        yield server


def connected(gateway: GatewayServer) -> Client:
    return Client(urlsplit(gateway.url).port or 0)


def test_the_key_is_checked_before_the_body_is_read(gateway: GatewayServer) -> None:
    """The response comes before the body is sent; a client that expects 100 Continue gets none."""
    for path, headers, more in product(ROUTES, WRONG, ((), (FORM,), ("Expect: 100-continue",))):
        with connected(gateway) as client:
            client.send(request("POST", path, *headers, *more, f"Content-Length: {8 * MB}"))
            assert client._read.peek()[:12] == b"HTTP/1.1 401"
            answer = client.answer()
            assert (answer.status, answer.json["code"]) == (401, "unauthorized")
            assert answer.headers["connection"] == "close"


def test_half_bodies_without_a_key_hold_no_memory(gateway: GatewayServer) -> None:
    process = psutil.Process()
    clients: list[Client] = []
    before = process.memory_info().rss
    used = process.cpu_times().user
    for number in range(40):
        # Clients connect one by one: a connection that is silent for long is cut.
        clients.append(client := connected(gateway))
        form = (FORM,) if number % 2 else ()
        client.send(request("POST", ROUTES[number % len(ROUTES)], *form, f"Content-Length: {9 * MB}"))
        client.send(*([b'{"query": "' if not form else FILE] + [b"x" * MB] * 8))
    for client in clients:
        assert client.answer().status == 401
    assert process.memory_info().rss - before < 40 * MB, "of the 320 MB that were sent"
    assert process.cpu_times().user - used < 10
    for client in clients:
        client.__exit__()


def test_an_upload_with_endless_parts_is_refused(gateway: GatewayServer) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    named = b"".join(part.replace(b'"a"', b'"%d"' % n) for n in range(1000))
    whole = FILE + b"film\r\n"
    for first, more in (
        (b"", part * 1000),
        (b"", named),
        (whole, named),
        (whole, b"--b\r\n\r\n\r\n" * 1000),
        (whole + b"--b--\r\n", b"x" * 60_000),
        (b"x" * 1000, b"x" * 60_000),
        (whole + b"--b\r\n", b"a: b\r\n" * 10_000),
    ):
        with connected(gateway) as client:
            client.send(request("POST", "/files/upload", KEYED, FORM, "Transfer-Encoding: chunked"))
            client.send(chunk(first) if first else b"")
            for _ in range(60):
                if _hears(client):
                    break
                client.send(chunk(more))
            answer = client.answer()
            assert (answer.status, answer.json["code"]) == (400, "invalid_param")


def test_file_names_are_decoded_in_bounded_time(gateway: GatewayServer) -> None:
    """The mail decoder scans the rest of a name at every encoded word that does not end."""
    words = b"=?utf-8?Q?a" * 360
    values = (b'form-data; name="x"; filename="=?a?b?c?=' + words, *[words] * 5, words + b'"')
    part = b"--b\r\n" + b"".join(b"Content-Disposition: %b\r\n" % value for value in values) + b"\r\n\r\n"
    process = psutil.Process()
    used = process.cpu_times().user
    with connected(gateway) as client:
        client.send(
            request("POST", "/files/upload", KEYED, FORM, body=part * 17 + FILE + b"film\r\n--b--\r\n")
        )
        answer = client.answer()
    assert answer.status == 400, "it has no user"
    assert process.cpu_times().user - used < 4


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _hears(client: Client) -> bool:
    """Whether the server has said something."""
    client.socket.settimeout(0.05)
    try:
        return bool(client.socket.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        client.socket.settimeout(20)


LEAVING = {
    "before anything": b"",
    "in the request line": b"POST /chat-mess",
    "in the head": request("POST", "/chat-messages", KEYED)[:-2],
    "in a body": request("POST", "/chat-messages", KEYED, "Content-Length: 500") + b'{"query": "Hi',
    "in a chunk": request("POST", "/chat-messages", KEYED, "Transfer-Encoding: chunked") + b"ff\r\n{",
    "in a body without a key": request("POST", "/chat-messages", "Content-Length: 500") + b"{",
    "before a file": request("POST", "/files/upload", KEYED, FORM, "Content-Length: 500"),
    "in a file": request("POST", "/files/upload", KEYED, FORM, f"Content-Length: {9 * MB}")
    + FILE
    + b"x" * 6 * MB,
    "after a file": request("POST", "/files/upload", KEYED, FORM, f"Content-Length: {9 * MB}")
    + FILE
    + b"x\r\n--b\r\nContent-Disposition: form-data; name",
    "in a rename": request("POST", "/conversations/1/name", KEYED, "Content-Length: 50") + b"{",
    "in a delete": request("DELETE", "/conversations/1", KEYED, "Content-Length: 50") + b"{",
    "in a put": request("PUT", "/conversations/1/variables/2", KEYED, "Content-Length: 50") + b"{",
}


def turn(mode: str) -> bytes:
    body: dict[str, Any] = {"query": "Hi", "user": "u", "inputs": {}, "response_mode": mode}
    return request("POST", "/chat-messages", KEYED, body=json.dumps(body).encode())


@pytest.mark.parametrize("how", ["politely", "with a reset"])
def test_a_disconnect_at_any_byte_logs_no_error(
    gateway: GatewayServer, fake: ScriptedBackend, gate: Gate, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Mid-head, mid-body, mid-response: nothing is logged beyond INFO, and nothing stays."""
    caplog.set_level(logging.INFO)
    fake.script = script(text("One "), gate, *(delta("x" * 1000) for _ in range(2000)), succeed())
    left = [*LEAVING.values(), turn("blocking"), turn("streaming")]
    for sent in left:
        with connected(gateway) as client:
            client.send(sent)
            if b"streaming" in sent:
                assert b"One " in _until(client, b"One ")
            if how == "with a reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    with connected(gateway) as client:
        client.send(turn("streaming"))
        _until(client, b"One ")
        gate.open()
        _until(client, b"xxxx")
    wait_until(lambda: not gateway.server.server_state.connections)
    wait_until(lambda: not gateway.server.server_state.tasks)
    wait_until(lambda: not gateway.gateway.live.running())
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert loud == []
    assert not re.search("Traceback", caplog.text)


def _until(client: Client, sign: bytes) -> bytes:
    data = b""
    while sign not in data:
        piece = client.socket.recv(65536)
        assert piece, data
        data += piece
    return data


def test_an_upgrade_request_is_served_as_a_turn(gateway: GatewayServer) -> None:
    """As the default HTTP client of a JDK sends it: the body in a packet of its own."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    head, _, body = turn("blocking").partition(b"\r\n\r\n")
    with connected(gateway) as client:
        for _ in range(2):
            client.send(head + "".join(f"\r\n{line}" for line in upgrade).encode() + b"\r\n\r\n", body)
            answer = client.answer()
            assert (answer.status, answer.json["answer"]) == (200, "You said: Hi.")
