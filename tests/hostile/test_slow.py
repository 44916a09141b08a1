"""Who is slow is cut: at the head, at the body, and while reading; who is only not fast is served."""

import socket
import time

import pytest

from agent_gateway.server import connection
from tests.gateway_server import wait_until
from tests.hostile.raw import Client, RecordingServer, request

SECONDS = 1.0
"""What all limits are set to here; a wait of many times that has failed."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS", "STALL_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connection, name, SECONDS)
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.1)


def closed(recording: RecordingServer) -> None:
    """Wait until the server has no connection left."""
    wait_until(lambda: not recording.connections)


def timed_out(client: Client) -> None:
    answer = client.answer()
    assert (answer.status, answer.json["code"]) == (408, "request_timeout")
    assert client.is_closed()


def test_who_sends_nothing_is_closed_without_a_word(recording: RecordingServer) -> None:
    with recording.client() as client:
        wait_until(lambda: recording.connections)
        assert client.is_closed()
        closed(recording)


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: test\r\n\r"])
def test_half_a_head(recording: RecordingServer, sent: bytes) -> None:
    with recording.client() as client:
        client.send(sent)
        timed_out(client)
        closed(recording)
    assert recording.app.begun == 0


def test_a_head_a_byte_at_a_time(recording: RecordingServer) -> None:
    """The time is for the head, not for its next byte."""
    with recording.client() as client:
        client.socket.settimeout(0.1)
        for byte in request("GET", "/", f"a: {'b' * 10_000}"):
            client.send(bytes([byte]))
            try:
                assert client.socket.recv(12, socket.MSG_PEEK).startswith(b"HTTP/1.1 408")
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("the server waited for all of it")
    assert recording.app.begun == 0


@pytest.mark.parametrize("line", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_half_a_body(recording: RecordingServer, line: str) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", line), b"5\r\nhello\r\n")
        timed_out(client)
        closed(recording)
    wait_until(lambda: recording.app.ended == 1)
    assert [seen.whole for seen in recording.app.seen] == [False]


def test_a_body_that_comes_slowly_but_comes(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", f"Content-Length: {connection.STALL_BYTES * 6}"))
        for _ in range(6):
            client.send(b"x" * connection.STALL_BYTES)
            time.sleep(SECONDS / 2)
        assert client.answer().json["size"] == connection.STALL_BYTES * 6


def test_the_time_of_the_application_is_not_the_clients(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/hold", "Content-Length: 5"))
        time.sleep(SECONDS * 2)
        recording.app.gate.set()
        client.send(b"hello")
        assert client.answer().json["size"] == 5
    with recording.client() as client:
        recording.app.gate.clear()
        client.send(request("GET", "/wait"))
        time.sleep(SECONDS * 2)
        recording.app.gate.set()
        assert client.answer().status == 200


def unread(recording: RecordingServer, sent: bytes) -> Client:
    """A client with the smallest of windows that has sent this and reads nothing."""
    client = Client.__new__(Client)
    client.socket = socket.socket()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.socket.connect(("127.0.0.1", recording.port))
    client._read = client.socket.makefile("rb")
    client.socket.sendall(sent)
    return client


@pytest.mark.parametrize("lines", [(), ("Connection: close",)], ids=["kept", "closing"])
def test_a_download_that_is_not_read(recording: RecordingServer, lines: tuple[str, ...]) -> None:
    with unread(recording, request("GET", "/big", *lines)):
        wait_until(lambda: recording.app.ended == 1)
        closed(recording)


def test_small_responses_that_are_not_read(recording: RecordingServer) -> None:
    """Less than what a transport calls full, but for ever: asked again and again, until nothing fits."""
    with unread(recording, b"") as client:
        assert client.flood(request("GET", "/") * 500, 10**9) < 50_000_000
        closed(recording)


def test_a_download_that_is_read_slowly_but_read(recording: RecordingServer) -> None:
    with unread(recording, request("GET", "/big")) as client:
        for _ in range(8):
            assert client._read.read(100_000)
            time.sleep(SECONDS / 2)
        assert recording.connections, "it was cut"


@pytest.mark.parametrize(
    ("lines", "more"), [((), b""), (("Connection: close",), b"GET")], ids=["kept", "closing"]
)
def test_who_reads_slowly_gets_all(recording: RecordingServer, lines: tuple[str, ...], more: bytes) -> None:
    """Nobody is idle, or has to be got rid of, before the last byte of the response was taken."""
    recording.server.config.timeout_keep_alive = 1
    with unread(recording, request("GET", "/big", *lines) + more) as client:
        for _ in range(8):
            assert client._read.read(20_000)
            time.sleep(SECONDS / 2)
        assert len(client._read.read(recording.app.BIG - 8 * 20_000)) == recording.app.BIG - 8 * 20_000
        closed(recording)


def test_idle_connections_stay_for_the_next_request(recording: RecordingServer) -> None:
    with recording.client() as client:
        for _ in range(2):
            client.send(request("GET", "/"))
            assert client.answer().status == 200
            time.sleep(SECONDS * 2)
        client.send(b"GET")
        timed_out(client)


def test_who_was_refused_and_stays_is_closed(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/early", "Content-Length: 100000"))
        assert client.answer().headers["connection"] == "close"
        began = time.monotonic()
        assert client.flood(b"x", 10**6) < 10**6 or client.is_closed()
        closed(recording)
        assert time.monotonic() - began < 15
