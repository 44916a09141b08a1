"""Bounds of one connection before its key is checked: endless heads, trailers and pipelines."""

import resource
import time
from dataclasses import replace

import pytest

from agent_gateway.limits import ServerLimits
from agent_gateway.server.head import MAX_HEAD, MAX_HEADERS
from tests.support.gateway_server import wait_until
from tests.support.raw_http import Client, RecordingServer, chunked, request

MB = 1024 * 1024
READ = 256 * 1024
"""The event loop reads at most this many bytes at once."""


LITTLE_IS_READ_ON = ServerLimits(linger_bytes=4 * MB)
"""Of what a refused client sends."""


@pytest.fixture
def server_limits() -> ServerLimits:
    return LITTLE_IS_READ_ON


def refused(client: Client, status: int, code: str) -> None:
    """The one response is this refusal, in the envelope of all errors, and then the server closes."""
    answer = client.answer()
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status)
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
        (b"GET / HTTP/1.1\r\na: ", b"b" * 60_000),
        (b"GET / HTTP/1.1\r\n", b"a" * 60_000),
        (b"GET /", b"a" * 60_000),
        (b"", b"A" * 60_000),
    ],
    ids=["headers", "one header", "a name", "a path", "a method"],
)
def test_an_endless_head_is_refused(recording: RecordingServer, begin: bytes, more: bytes) -> None:
    used = time.process_time()
    with recording.client() as client:
        client.send(begin)
        sent = client.flood(more, 200 * MB)
        assert sent < 30 * MB, "the server read on"
        assert recording.held <= MAX_HEAD + READ
    assert recording.app.begun == 0
    assert time.process_time() - used < 5


def test_a_client_that_stops_at_the_limit_reads_the_reason(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(b"GET / HTTP/1.1\r\na: ", b"b" * MAX_HEAD)
        refused(client, 431, "request_head_too_large")
    with recording.client() as client:
        client.send(request("GET", "/", *(f"a{number}: b" for number in range(MAX_HEADERS + 1))))
        refused(client, 431, "request_head_too_large")
    assert recording.app.begun == 0


def test_a_large_head_is_accepted(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("GET", "/", f"cookie: {'c' * (MAX_HEAD - 100)}"))
        assert client.answer().status == 200


def test_a_large_head_in_small_pieces_is_read_in_linear_time(recording: RecordingServer) -> None:
    """Bytes that were searched once are not searched again with each packet."""
    head = request("GET", "/", f"cookie: {'c' * 60_000}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with recording.client() as client:
        client.send(*(head[at : at + 16] for at in range(0, len(head), 16)))
        assert client.answer().status == 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5


def test_empty_lines_before_a_request_are_bounded_in_time() -> None:
    limits = replace(LITTLE_IS_READ_ON, head_seconds=0.5, look_seconds=0.1)
    with RecordingServer(limits) as recording, recording.client() as client:
        began = time.monotonic()
        client.flood(b"\r\n", 10**12)
        assert time.monotonic() - began < 15
    assert recording.app.begun == 0


@pytest.mark.parametrize(
    "more",
    [b"a: b\r\n" * 10_000, b"a: " + b"b" * 60_000, b"\x00" * 1000],
    ids=["trailers", "one trailer", "nonsense"],
)
def test_endless_trailers_are_refused(recording: RecordingServer, more: bytes) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n")
        assert client.flood(more, 200 * MB) < 30 * MB
        wait_until(lambda: recording.app.ended == 1)
        assert recording.held <= READ
    assert [seen.whole for seen in recording.app.seen] == [False]


@pytest.mark.parametrize("more", [b"5;" + b"a" * 60_000, b"1;a=b\r\nx\r\n" * 6_000], ids=["one", "many"])
def test_endless_chunk_extensions_are_refused(recording: RecordingServer, more: bytes) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"))
        assert client.flood(more, 200 * MB) < 30 * MB
        wait_until(lambda: recording.app.ended == 1)
    assert [seen.whole for seen in recording.app.seen] == [False]


def test_pipelined_requests_wait_unread(recording: RecordingServer) -> None:
    """Requests that come before the first one was answered cost no more than one read of them."""
    with recording.client() as client:
        client.socket.settimeout(2.0)
        client.send(request("GET", "/wait"))
        piece = request("GET", "/") * 1000
        assert client.flood(piece, 200 * MB) < 30 * MB
        assert recording.app.begun == 1
        assert recording.held <= 2 * READ


def test_pipelined_requests_are_answered_in_order(recording: RecordingServer) -> None:
    count = 2_000
    with recording.client() as client:
        client.send(request("GET", "/wait"), *(request("POST", f"/{n}", body=b"x" * n) for n in range(count)))
        recording.app.gate.set()
        assert client.answer().json["path"] == "/wait"
        for number in range(count):
            assert client.answer().json == {"method": "POST", "path": f"/{number}", "size": number}
    assert recording.app.begun == count + 1


def test_a_body_the_application_does_not_read_stays_unread(recording: RecordingServer) -> None:
    """Bytes that the application has not asked for do not pile up."""
    with recording.client() as client:
        client.socket.settimeout(2.0)
        client.send(request("POST", "/hold", f"Content-Length: {200 * MB}"))
        assert client.flood(b"x" * 100_000, 200 * MB) < 30 * MB
        assert 0 < recording.held <= 2 * READ


def test_the_rest_of_a_refused_body_is_discarded_up_to_a_bound(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/early", f"Content-Length: {200 * MB}"))
        assert client.flood(b"x" * 100_000, 200 * MB) < 30 * MB
        assert recording.held == 0
    with recording.client() as client:
        client.send(request("POST", "/early", f"Content-Length: {3 * MB}"), b"x" * 3 * MB)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()
    assert recording.app.begun == 2


def test_many_tiny_chunks_form_one_body(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"), chunked(*[b"x"] * 50_000))
        assert client.answer().json["size"] == 50_000
