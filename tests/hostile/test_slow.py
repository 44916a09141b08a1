"""Stalled clients are cut: at the head, at the body, and while reading; slow but steady ones are served."""

import socket
import threading

import pytest

from agent_gateway.limits import ServerLimits
from tests.support.gateway_server import BOUND, wait_until
from tests.support.raw_http import Client, RecordingServer, request

LIMITS = ServerLimits(look_seconds=0.05)
A_WHILE = LIMITS.stall_seconds * 2 / 3
"""Two of these are too long. What really passes meanwhile may be ten seconds more."""


@pytest.fixture
def server_limits() -> ServerLimits:
    """The server looks often; time passes for it when a test says so."""
    return LIMITS


def closed(recording: RecordingServer) -> None:
    """The server has no connection left, once it has waited long enough for its clients to leave."""
    recording.pass_time(LIMITS.linger_seconds)
    wait_until(lambda: not recording.connections)


def timed_out(client: Client) -> None:
    answer = client.answer()
    assert (answer.status, answer.json["code"]) == (408, "request_timeout")
    assert client.is_closed()


def test_a_silent_connection_is_closed_without_a_response(recording: RecordingServer) -> None:
    with recording.client() as client:
        wait_until(lambda: recording.connections)
        recording.pass_time(LIMITS.head_seconds)
        assert client.is_closed()
        closed(recording)


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: test\r\n\r"])
def test_half_a_head_times_out(recording: RecordingServer, sent: bytes) -> None:
    with recording.client() as client:
        client.send(sent)
        wait_until(lambda: recording.held == len(sent))
        recording.pass_time(LIMITS.head_seconds)
        timed_out(client)
        closed(recording)
    assert recording.app.begun == 0


def test_a_head_sent_byte_by_byte_times_out(recording: RecordingServer) -> None:
    """The time is for the head, not for its next byte."""
    with recording.client() as client:
        for number, byte in enumerate(b"GET ", 1):
            client.send(bytes([byte]))
            wait_until(lambda number=number: recording.held == number)
            recording.pass_time(LIMITS.head_seconds / 4)
        timed_out(client)
    assert recording.app.begun == 0


@pytest.mark.parametrize("line", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_half_a_body_times_out(recording: RecordingServer, line: str) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", line), b"5\r\nhello\r\n")
        wait_until(lambda: recording.app.begun == 1)
        wait_until(lambda: all(one._exchange.listening for one in recording.connections if one._exchange))
        recording.pass_time(LIMITS.stall_seconds)
        timed_out(client)
        closed(recording)
    wait_until(lambda: recording.app.ended == 1)
    assert [seen.whole for seen in recording.app.seen] == [False]


def test_a_slow_body_is_accepted(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", f"Content-Length: {LIMITS.stall_bytes * 6}"))
        for number in range(1, 7):
            client.send(b"x" * LIMITS.stall_bytes)
            wait_until(
                lambda least=number * LIMITS.stall_bytes: any(
                    c._received > least for c in recording.connections
                )
            )
            recording.pass_time(A_WHILE)
        assert client.answer().json["size"] == LIMITS.stall_bytes * 6


def test_the_time_of_the_application_does_not_count_against_the_client(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/hold", "Content-Length: 5"))
        wait_until(lambda: recording.app.begun == 1)
        recording.pass_time(LIMITS.stall_seconds * 2)
        recording.app.gate.set()
        client.send(b"hello")
        assert client.answer().json["size"] == 5
    with recording.client() as client:
        recording.app.gate.clear()
        client.send(request("GET", "/wait"))
        wait_until(lambda: recording.app.begun == 2)
        recording.pass_time(LIMITS.stall_seconds * 2)
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
def test_a_download_that_is_not_read_is_cut(recording: RecordingServer, lines: tuple[str, ...]) -> None:
    with unread(recording, request("GET", "/big", *lines)):
        wait_until(lambda: recording.app.ended == 1)
        recording.pass_time(LIMITS.stall_seconds)
        closed(recording)


def test_small_responses_that_are_not_read_are_cut(recording: RecordingServer) -> None:
    """Each response is below the transport's limit, but requests repeat until nothing fits."""
    sent: list[int] = []
    with unread(recording, b"") as client:
        more = request("GET", "/") * 500
        flooding = threading.Thread(target=lambda: sent.append(client.flood(more, 10**9)), daemon=True)
        flooding.start()
        wait_until(lambda: any(one.full and one._paused for one in recording.connections))
        recording.pass_time(LIMITS.stall_seconds)
        flooding.join(BOUND)
        assert sent[0] < 50_000_000
        closed(recording)


def test_a_slowly_read_download_is_served(recording: RecordingServer) -> None:
    with unread(recording, request("GET", "/big")) as client:
        for _ in range(8):
            assert client._read.read(100_000)
            recording.pass_time(A_WHILE)
        assert recording.connections, "it was cut"


@pytest.mark.parametrize(
    ("lines", "more"), [((), b""), (("Connection: close",), b"GET")], ids=["kept", "closing"]
)
def test_a_slow_reader_gets_the_whole_response(
    recording: RecordingServer, lines: tuple[str, ...], more: bytes
) -> None:
    """A connection is neither idle nor closed before the last byte of the response was read."""
    recording.server.config.timeout_keep_alive = 1
    with unread(recording, request("GET", "/big", *lines) + more) as client:
        for _ in range(8):
            assert client._read.read(30_000)
            recording.pass_time(A_WHILE)
        assert len(client._read.read(recording.app.BIG - 8 * 30_000)) == recording.app.BIG - 8 * 30_000
        closed(recording)


def test_an_idle_connection_serves_the_next_request(recording: RecordingServer) -> None:
    with recording.client() as client:
        for _ in range(2):
            client.send(request("GET", "/"))
            assert client.answer().status == 200
            recording.pass_time(LIMITS.head_seconds * 2)
        client.send(b"GET")
        wait_until(lambda: recording.held == 3)
        recording.pass_time(LIMITS.head_seconds)
        timed_out(client)


def test_a_refused_connection_that_stays_open_is_closed(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/early", "Content-Length: 100000"))
        assert client.answer().headers["connection"] == "close"
        # This holds even while the client continues to send.
        sent: list[int] = []
        flooding = threading.Thread(target=lambda: sent.append(client.flood(b"x", 10**9)), daemon=True)
        flooding.start()
        closed(recording)
        flooding.join(BOUND)
        assert sent[0] < 10**9
