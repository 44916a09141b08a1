"""The ends of requests: one request has one response, and no body becomes a request."""

import random
from collections.abc import Iterator

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent_gateway.server.body import ChunkedBody
from agent_gateway.server.head import CHUNKED, END, Head, Refused
from tests.support.gateway_server import wait_until
from tests.support.http_messages import HIDDEN, UPGRADES, Change, changed, changes, messages
from tests.support.properties import examples
from tests.support.raw_http import RecordingServer, Seen, chunked, request


@pytest.fixture(scope="module")
def shared() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("how", ["at once", "in its own packet", "chunked", "in pieces"])
def test_an_upgrade_request_is_served_over_http_1_with_its_body(
    recording: RecordingServer, upgrade: str, how: str
) -> None:
    lines = UPGRADES[upgrade]
    head = request("POST", "/first", *lines, f"Content-Length: {len(HIDDEN)}")
    with recording.client() as client:
        if how == "at once":
            client.send(head + HIDDEN)
        elif how == "chunked":
            client.send(request("POST", "/first", *lines, "Transfer-Encoding: chunked") + chunked(HIDDEN))
        else:
            client.send(head)
            wait_until(lambda: recording.app.begun == 1)
            client.send(*([HIDDEN] if how == "in its own packet" else [HIDDEN[:9], HIDDEN[9:]]))
        assert client.answer().json == {"method": "POST", "path": "/first", "size": len(HIDDEN)}
        client.send(request("GET", "/second", *lines))
        assert client.answer().json["path"] == "/second"
    assert recording.app.seen == [Seen("POST", "/first", HIDDEN, True), Seen("GET", "/second", b"", True)]


AMBIGUOUS = {
    "length and chunks": ("Content-Length: 5", "Transfer-Encoding: chunked"),
    "chunks and length": ("Transfer-Encoding: chunked", "Content-Length: 5"),
    "two lengths": ("Content-Length: 5", "Content-Length: 6"),
    "the same length twice": ("Content-Length: 5", "Content-Length: 5"),
    "a list of lengths": ("Content-Length: 5, 5",),
    "a length with a sign": ("Content-Length: +5",),
    "a negative length": ("Content-Length: -5",),
    "a length in hex": ("Content-Length: 0x5",),
    "a length with a space": ("Content-Length: 5 5",),
    "an endless length": (f"Content-Length: {'9' * 30}",),
    "no length": ("Content-Length: ",),
    "a coding around chunks": ("Transfer-Encoding: gzip, chunked",),
    "chunks in a coding": ("Transfer-Encoding: chunked, gzip",),
    "chunks twice": ("Transfer-Encoding: chunked, chunked",),
    "chunks in two headers": ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "identity": ("Transfer-Encoding: identity",),
    "identity and chunks": ("Transfer-Encoding: identity", "Transfer-Encoding: chunked"),
    "chunks by another name": ("Transfer-Encoding: xchunked",),
    "chunks with a tab": ("Transfer-Encoding: \x0bchunked",),
    "chunks in quotes": ('Transfer-Encoding: "chunked"',),
    "a space before the colon": ("Content-Length : 5",),
    "a folded header": ("X: y\r\n Content-Length: 5",),
    "a lone LF": ("X: y\nContent-Length: 5",),
    "a lone CR": ("X: y\rContent-Length: 5",),
    "NUL": ("X: y\x00",),
    "no name": (": x",),
    "two hosts": ("Host: other",),
    "no colon": ("Content-Length",),
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_refused(recording: RecordingServer, lines: tuple[str, ...]) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", *lines) + chunked(b"hello") + HIDDEN)
        answer = client.answer()
        assert (answer.status, answer.json["code"]) == (400, "bad_request")
        assert client.is_closed()
    assert recording.app.begun == 0


@pytest.mark.parametrize(
    "start",
    [
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
        "PRI * HTTP/2.0",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET /",
        "GET /a b HTTP/1.1",
        "get / HTTP/1.1",
        "CONNECT host:443 HTTP/1.1",
        "NONSENSE / HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
)
def test_a_malformed_request_line_is_refused(recording: RecordingServer, start: str) -> None:
    with recording.client() as client:
        client.send(f"{start}\r\nHost: test\r\n\r\n".encode("latin-1") + HIDDEN)
        assert client.answer().status in (400, 505)
        assert client.is_closed()
    assert recording.app.begun == 0


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\n0\n\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"5;a=\n\r\nhello\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent Length: 5\r\n\r\n",
        b"5\r\nhello\r\n0\r\na: b\n\r\n",
    ],
)
def test_malformed_chunks_are_refused(recording: RecordingServer, body: bytes) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: chunked"), body + HIDDEN)
        assert client.answer().status == 400
        assert client.is_closed()
    wait_until(lambda: recording.app.ended == 1)
    assert [(seen.path, seen.whole) for seen in recording.app.seen] == [("/", False)]


def test_chunk_extensions_and_trailers_are_dropped(recording: RecordingServer) -> None:
    body = chunked(
        b"hello ", b"you", extension=b' ;a="b;c" ; d', trailers=b"Content-Length: 99\r\nX-User: z\r\n"
    )
    with recording.client() as client:
        client.send(request("POST", "/", "Transfer-Encoding: Chunked", "Trailer: X-User") + body + HIDDEN)
        assert client.answer().json["size"] == 9
        assert client.answer().json["path"] == "/hidden"
    assert recording.app.seen == [Seen("POST", "/", b"hello you", True), Seen("DELETE", "/hidden", b"", True)]


def test_expect_100_continue_is_answered_before_the_body(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 5"))
        assert client._read.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert client._read.readline() == b"\r\n"
        client.send(b"hello")
        assert client.answer().json["size"] == 5
        # There is no 100 Continue for a client that does not wait, nor for a refused request.
        client.send(request("POST", "/", "Expect: 100-continue", body=b"hello"))
        assert client._read.peek()[:12] == b"HTTP/1.1 200"
        assert client.answer().json["size"] == 5
        client.send(request("POST", "/early", "Expect: 100-continue", "Content-Length: 5"))
        assert client._read.peek()[:12] == b"HTTP/1.1 200"
        assert client.answer().headers["connection"] == "close"
        assert client.is_closed()


@pytest.mark.parametrize("sent", [b"", HIDDEN[:10], HIDDEN], ids=["before", "in the middle", "after"])
def test_an_unread_body_is_not_taken_for_a_request(recording: RecordingServer, sent: bytes) -> None:
    """A small one is awaited: whether the connection stays does not depend on when it comes."""
    with recording.client() as client:
        client.send(request("POST", "/early", f"Content-Length: {len(HIDDEN)}") + sent)
        assert client.answer().json["path"] == "/early"
        client.send(HIDDEN[len(sent) :] + request("GET", "/next"))
        assert client.answer().json["path"] == "/next"
    assert [seen.path for seen in recording.app.seen] == ["/early", "/next"]


@pytest.mark.parametrize("how", ["large", "chunked"])
def test_a_long_unread_body_closes_the_connection(recording: RecordingServer, how: str) -> None:
    line = "Transfer-Encoding: chunked" if how == "chunked" else "Content-Length: 100000"
    with recording.client() as client:
        client.send(request("POST", "/early", line))
        assert client.answer().headers["connection"] == "close"
        client.send(HIDDEN)
        assert client.is_closed()
    assert [seen.path for seen in recording.app.seen] == ["/early"]


def test_an_aborted_body_begins_no_turn(recording: RecordingServer) -> None:
    for piece in (b"", HIDDEN[:10], HIDDEN):
        with recording.client() as client:
            client.send(request("GET", "/before"))
            assert client.answer().status == 200
            client.send(request("POST", "/cut", "Content-Length: 1000") + piece)
        wait_until(lambda: recording.app.begun == recording.app.ended and not recording.connections)
    whole = [(seen.path, seen.whole) for seen in recording.app.seen]
    assert whole == [("/before", True), ("/cut", False)] * 3


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_connection_close_is_honoured(recording: RecordingServer, version: str) -> None:
    with recording.client() as client:
        client.send(f"GET / HTTP/{version}\r\nConnection: close\r\n\r\n".encode() + HIDDEN)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()
    assert recording.app.begun == 1


def test_head_has_no_body_and_the_next_response_follows(recording: RecordingServer) -> None:
    with recording.client() as client:
        client.send(request("HEAD", "/") + request("GET", "/next"))
        assert int(client.answer("HEAD").headers["content-length"]) > 0
        assert client.answer().json["path"] == "/next"


# -- fuzzed: the bytes cut anywhere ------------------------------------------------------------------


@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(messages(), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_requests_are_read_the_same_however_they_are_cut(
    shared: RecordingServer, sent: list[tuple[bytes, Seen]], seed: int
) -> None:
    dice = random.Random(seed)
    data = b"".join(raw for raw, _ in sent)
    cuts = sorted(dice.choices(range(len(data) + 1), k=dice.randrange(6)))
    shared.app.seen.clear()
    with shared.client() as client:
        client.send(*(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)))
        for _, seen in sent:
            answer = client.answer()
            assert answer.json == {"method": seen.method, "path": seen.path, "size": len(seen.body)}
    assert shared.app.seen == [seen for _, seen in sent]


# -- fuzzed: another parser's opinion ----------------------------------------------------------------


def ours(data: bytes) -> list[Seen]:
    """The whole requests that this server reads before it refuses."""
    found: list[Seen] = []
    buffer = bytearray(data)
    try:
        while end := END.search(buffer):
            head = Head(bytes(buffer[: end.end()]))
            del buffer[: end.end()]
            if head.body_size == CHUNKED:
                chunks = ChunkedBody()
                body = chunks.take(buffer)
                if not chunks.complete:
                    break
            elif len(buffer) < head.body_size:
                break
            else:
                body = bytes(buffer[: head.body_size])
                del buffer[: head.body_size]
            found.append(Seen(head.method, head.raw_path.decode(), body, True))
            if not head.keep_alive:
                break
    except Refused:
        pass
    return found


def theirs(data: bytes) -> list[Seen]:
    """The same of h11, which is written for this and shares no line with the parser here."""
    found: list[Seen] = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    body, begun = b"", None
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                begun, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert begun is not None
                path = begun.target.partition(b"?")[0].decode()
                found.append(Seen(begun.method.decode(), path, body, True))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            else:
                return found
    except h11.RemoteProtocolError:
        return found


@pytest.mark.slow
@examples(1500)
@given(
    sent=st.lists(messages(), min_size=1, max_size=3),
    changes=changes(),
)
@example(
    sent=[(request("POST", "/", "Content-Length: 3"), Seen("", "", b"", True))], changes=[(0, 0, b"\r\n")]
)
def test_another_parser_agrees_on_the_end_of_each_request(
    sent: list[tuple[bytes, Seen]], changes: list[Change]
) -> None:
    """Bytes broken at random: what both take for a request is the same one for both."""
    data = changed(b"".join(raw for raw, _ in sent), changes)
    for mine, other in zip(ours(data), theirs(data), strict=False):
        assert mine == other
