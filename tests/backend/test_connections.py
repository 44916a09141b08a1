"""The client's own HTTP: connections, requests and answers as they come from real servers, and odd ones."""

import asyncio
import gzip
import logging
import socket
import ssl
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.http.connection import MAX_SILENCE
from agent_gateway.backend.http.dialer import Dialer
from agent_gateway.backend.http.encodings import MAX_UNPACKED
from agent_gateway.backend.protocol import Composition, CreateRunRequest, RunEvent
from agent_gateway.domain.ids import RunId
from agent_gateway.errors import BackendGarbage, BackendUnreachable, RunGap
from agent_gateway.limits import BackendLimits
from tests.support.certificates import make_certificates
from tests.support.fakes.raw_backend import BOUND, NEW_RUN, Answer, RawBackend
from tests.support.fakes.run_frames import END, FRAMES, RUN, START, letter
from tests.support.run_reader import Reader, events_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The gateway runs on uvloop, which has transports and TLS of its own."""
    return "asyncio", {"use_uvloop": request.param}


RUN_ID = RunId("run-1")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"".join(FRAMES)


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def chunks(data: bytes, size: int) -> bytes:
    """A chunked body, cut without regard to the frames."""
    return b"".join(chunk(data[start : start + size]) for start in range(0, len(data), size)) + b"0\r\n\r\n"


def deflated(data: bytes) -> bytes:
    """Without the frame of zlib, as many servers send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@asynccontextmanager
async def client_of(
    backend: RawBackend, reconnect_seconds: float = 5.0, **limits: float
) -> AsyncGenerator[HTTPBackend]:
    client = HTTPBackend(backend.url, reconnect_seconds=reconnect_seconds, limits=BackendLimits(**limits))
    try:
        async with asyncio.timeout(BOUND):
            yield client
    finally:
        await client.aclose()


def request() -> CreateRunRequest:
    return CreateRunRequest(Composition(1, []))


async def turn(client: HTTPBackend) -> list[RunEvent]:
    return await events_of(client, await client.create_run(request()))


def said(events: list[RunEvent]) -> str:
    return "".join(str(event.agent_message_delta) for event in events if event.agent_message_delta)


# Answers of all kinds

STREAMS = {
    "chunked": CHUNKED + chunks(BODY, len(BODY)),
    "a chunk for each frame": CHUNKED + b"".join(map(chunk, FRAMES)) + b"0\r\n\r\n",
    "chunks of 7 bytes": CHUNKED + chunks(BODY, 7),
    "extensions and trailers": CHUNKED
    + b"".join(chunk(frame, b";name=value") for frame in FRAMES)
    + b"0\r\nX-Sum: 1\r\n\r\n",
    "a length": OK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "until the end": OK + b"\r\n" + BODY,
    "HTTP/1.0": OK.replace(b"1.1", b"1.0") + b"\r\n" + BODY,
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    + CHUNKED
    + chunks(BODY, 99),
    "lines that end with LF": CHUNKED.replace(b"\r\n", b"\n") + chunks(BODY, 99),
    "small letters": CHUNKED.lower().replace(b"http/1.1 200 ok", b"HTTP/1.1 200 ok") + chunks(BODY, 99),
    "no last chunk": CHUNKED + chunk(BODY),
    "garbage behind the end": CHUNKED + chunk(BODY + b"data: nope\n\n") + b"no chunk at all",
    "gzip": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY),
    "gzip in parts": OK + b"Content-Encoding: gzip\r\n\r\n" + b"".join(map(gzip.compress, FRAMES)),
    "deflate": OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(BODY),
    "bare deflate": OK + b"Content-Encoding: deflate\r\n\r\n" + deflated(BODY),
}


@pytest.mark.parametrize("in_bytes", [False, True], ids=["at once", "in single bytes"])
@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_read_in_whatever_framing(name: str, in_bytes: bool) -> None:
    data = STREAMS[name]
    pieces = [data[at : at + 1] for at in range(len(data))] if in_bytes else [data]
    async with RawBackend([Answer(pieces, close=True)]) as backend, client_of(backend) as client:
        events = await turn(client)
        assert [event.id for event in events] == ["1-0", "2-0", "3-0", "9-0"]
        assert said(events) == "ab\U0001f600"
        await backend.until(open_connections=0)
        assert backend.lines == ["GET /openapi.json", "POST /runs", "GET /runs/run-1/events/sse"]


async def test_a_flood_of_events_lets_others_run_in_between() -> None:
    """Counted: the bytes of events that were handed over in one round of the event loop."""
    first, delta, *_, last = FRAMES
    deltas = [delta.replace(b"2-0", b"%d-0" % number) for number in range(2, 40_002)]
    body = b"".join([first, *deltas, last.replace(b"9-0", b"40002-0")])
    loop = asyncio.get_running_loop()
    in_round: Counter[int] = Counter()
    number = 0
    running: asyncio.Handle | None = None

    def next_round() -> None:
        nonlocal number, running
        number += 1
        running = loop.call_soon(next_round)

    def take(events: list[RunEvent]) -> None:
        in_round[number] += len(events) * len(delta)

    async with (
        RawBackend([Answer([OK + b"Content-Length: %d\r\n\r\n" % len(body) + body])]) as backend,
        client_of(backend) as client,
    ):
        next_round()
        await client.stream(RUN_ID, take)
        assert running is not None
        running.cancel()
    assert in_round.total() == 40_002 * len(delta)
    assert max(in_round.values()) < 400_000


@pytest.mark.parametrize("name", ["chunks of 7 bytes", "extensions and trailers", "a length"])
async def test_a_stream_may_be_split_at_every_byte(name: str) -> None:
    data = STREAMS[name]
    streams: list[Answer | None] = [
        Answer([data[:at], data[at:]], close=True) for at in range(1, len(data), 3)
    ]
    async with RawBackend(list(streams)) as backend, client_of(backend) as client:
        for _ in streams:
            assert [event.id for event in await events_of(client, RUN_ID)] == ["1-0", "2-0", "3-0", "9-0"]
        assert len(backend.requests) == len(streams)


async def test_events_are_handed_over_once_per_read_in_their_order() -> None:
    go_on, left = asyncio.Event(), asyncio.Event()
    batches: list[list[str]] = []

    def take(events: list[RunEvent]) -> None:
        batches.append([event.id for event in events])
        go_on.set()

    half, rest = chunk(letter(4, "c"))[:20], chunk(letter(4, "c"))[20:]
    reads = [CHUNKED + chunk(START), chunk(letter(2, "a")) + chunk(letter(3, "b")) + half, rest + chunk(END)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for read in reads:
            go_on.clear()
            writer.write(read)
            await go_on.wait()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HTTPBackend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with asyncio.timeout(BOUND):
        await client.stream(RUN_ID, take)
        await left.wait()
    assert batches == [["1-0"], ["2-0", "3-0"], ["4-0", "9-0"]]
    await client.aclose()
    server.close()


@pytest.mark.parametrize(
    ("frame", "error"),
    [(b"id: 2-0\ndata: nope\n\n", BackendGarbage), (letter(7, "x"), RunGap)],
    ids=["garbage", "gap"],
)
async def test_an_error_in_the_read_that_ends_the_answer_is_not_a_cut(
    frame: bytes, error: type[Exception]
) -> None:
    """However the bytes are cut into reads, the reason is the same, and the stream is not read again."""
    first = START if error is BackendGarbage else b""
    rest = chunk(first + frame) + b"0\r\n\r\n"
    for pieces in ([CHUNKED, rest], [CHUNKED + rest]):
        async with RawBackend([Answer(pieces, close=True)]) as backend, client_of(backend) as client:
            with pytest.raises(error):
                await events_of(client, RUN_ID)
            assert len(backend.requests) == 1


async def test_an_answer_that_unpacks_to_too_much_is_refused() -> None:
    bomb = gzip.compress(b"\n" * (MAX_UNPACKED + 1))
    packed = OK + b"Content-Encoding: gzip\r\n\r\n" + bomb
    async with RawBackend([Answer([packed], close=True)]) as backend, client_of(backend) as client:
        with pytest.raises(BackendGarbage, match="too much"):
            await events_of(client, RUN_ID)


CUT = {
    "in a chunk": CHUNKED + chunk(START) + b"ff\r\nid: 2-0",
    "in the size of a chunk": CHUNKED + chunk(START) + b"f",
    "behind a chunk": CHUNKED + chunk(START),
    "behind the last chunk": CHUNKED + chunk(START) + b"0\r\n\r\n",
    "before its length": OK + b"Content-Length: 9999\r\n\r\n" + START,
    "without a length": OK + b"\r\n" + START,
    "in the head": OK,
    "before the head": b"",
    "not HTTP": b"220 mail.example ESMTP\r\n\r\n",
    "not HTTP in the body": CHUNKED + chunk(START) + b"nonsense\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "a head without end": OK + b"X: " + b"x" * (2 * MAX_SILENCE),
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 4_000,
    "trailers without end": CHUNKED + chunk(START) + b"0\r\n" + b"X-More: x\r\n" * 20_000,
}


@pytest.mark.parametrize("name", CUT)
async def test_a_cut_stream_is_read_on_over_another_connection(name: str) -> None:
    whole = Answer([CHUNKED + chunk(BODY)])
    async with RawBackend([Answer([CUT[name]], close=True), whole]) as backend, client_of(backend) as client:
        assert [event.id for event in await events_of(client, RUN_ID)] == ["1-0", "2-0", "3-0", "9-0"]
        await backend.until(open_connections=0)
        assert backend.connections == 2


@pytest.mark.parametrize("name", [name for name in CUT if "without end" in name])
async def test_what_has_no_end_is_given_up_while_the_backend_goes_on(name: str) -> None:
    """It is not the backend's close that ends it."""
    async with RawBackend([Answer([CUT[name]])]) as backend, client_of(backend, 0.0) as client:
        with pytest.raises(BackendUnreachable):
            await events_of(client, RUN_ID)
        await backend.until(open_connections=0)


@pytest.mark.parametrize("stream", [None, Answer([b"HTTP/1.1 100 Continue\r\n\r\n"]), Answer([OK])])
async def test_a_backend_that_sends_no_head_is_given_up_in_time(stream: Answer | None) -> None:
    async with RawBackend([stream]) as backend, client_of(backend, 0.0, open_stream_seconds=0.2) as client:
        with pytest.raises(BackendUnreachable, match="in time"):
            await events_of(client, RUN_ID)
        await backend.until(open_connections=0)


CREATES = {
    "chunked": b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(RUN, 3),
    "until the end": b"HTTP/1.1 202 Accepted\r\n\r\n" + RUN,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + RUN,
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(RUN) + RUN,
    "bare deflate": b"HTTP/1.1 202 Accepted\r\nContent-Encoding: deflate\r\n\r\n" + deflated(RUN),
}


@pytest.mark.parametrize("name", CREATES)
async def test_the_answer_of_a_new_run_is_read_in_whatever_framing(name: str) -> None:
    data = CREATES[name]
    answer = Answer([data[at : at + 1] for at in range(len(data))], close=True)
    async with RawBackend(create=answer) as backend, client_of(backend) as client:
        assert await client.create_run(request()) == RUN_ID
        assert backend.lines.count("POST /runs") == 1


@pytest.mark.parametrize("cut", [1, 20, 60, len(NEW_RUN.pieces[0]) - 1])
async def test_half_an_answer_of_a_new_run_does_not_prove_that_nothing_was_sent(cut: int) -> None:
    answer = Answer([NEW_RUN.pieces[0][:cut]], close=True)
    async with RawBackend(create=answer) as backend, client_of(backend) as client:
        with pytest.raises(BackendUnreachable) as caught:
            await client.create_run(request())
        assert not caught.value.nothing_sent
        assert backend.lines.count("POST /runs") == 1


# Connections

STREAM = Answer([CHUNKED + chunk(BODY) + b"0\r\n\r\n"])


async def test_a_turn_takes_one_connection_and_a_new_run_always_a_new_one() -> None:
    """R4."""
    async with RawBackend([STREAM] * 3) as backend, client_of(backend) as client:
        for _ in range(3):
            assert said(await turn(client)) == "ab\U0001f600"
        await backend.until(open_connections=0)
        assert [(one.line.split()[0], one.connection, one.number) for one in backend.requests] == [
            ("GET", 1, 1),  # the document
            *(used for turns in range(3) for used in (("POST", turns + 2, 1), ("GET", turns + 2, 2))),
        ]


CLOSING = {
    "says so": Answer([NEW_RUN.pieces[0].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)]),
    "says so and closes": Answer([NEW_RUN.pieces[0].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)], True),
    "closes": Answer(NEW_RUN.pieces, close=True),
    "HTTP/1.0": Answer([NEW_RUN.pieces[0].replace(b"1.1", b"1.0")], close=True),
    "more than it should": Answer([NEW_RUN.pieces[0] + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]),
    "garbage": Answer([NEW_RUN.pieces[0] + b"x"]),
}


@pytest.mark.parametrize("name", CLOSING)
async def test_a_connection_that_takes_no_more_requests_is_not_used_again(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "agent_gateway")
    async with (
        RawBackend([STREAM], CLOSING[name]) as backend,
        client_of(backend, reconnect_seconds=0.0) as client,
    ):
        run_id = await client.create_run(request())
        await backend.until(open_connections=0, requests=2)
        caplog.clear()
        assert said(await events_of(client, run_id)) == "ab\U0001f600"
        await backend.until(open_connections=0)
        assert (backend.requests[2].connection, backend.requests[2].number) == (3, 1)
        assert not caplog.records


@pytest.mark.parametrize("half", [b"", OK, b"nonsense\r\n\r\n"], ids=["silent", "in its head", "garbage"])
async def test_a_connection_that_ends_before_its_second_answer_is_replaced_at_once(
    half: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a pause, which no budget would allow here, and without a word in the log."""
    caplog.set_level(logging.DEBUG, "agent_gateway")
    streams: list[Answer | None] = [Answer([half] if half else [], close=True), STREAM]
    async with RawBackend(streams) as backend, client_of(backend, reconnect_seconds=0.0) as client:
        run_id = await client.create_run(request())
        caplog.clear()
        assert said(await events_of(client, run_id)) == "ab\U0001f600"
        await backend.until(open_connections=0)
        assert [(one.connection, one.number) for one in backend.requests[1:]] == [(2, 1), (2, 2), (3, 1)]
        assert not caplog.records


async def test_a_backend_that_does_not_answer_on_a_spare_connection_is_not_asked_at_once_again() -> None:
    """It is there, but silent: that is a cut, which has its pause and its budget."""
    async with (
        RawBackend([None]) as backend,
        client_of(backend, reconnect_seconds=0.0, open_stream_seconds=0.2) as client,
    ):
        run_id = await client.create_run(request())
        with pytest.raises(BackendUnreachable, match="no answer in time"):
            await events_of(client, run_id)
        assert backend.connections == 2
        await backend.until(open_connections=0)


async def test_a_new_connection_that_ends_before_its_answer_is_a_cut() -> None:
    async with RawBackend([Answer(close=True)]) as backend, client_of(backend, 0.0) as client:
        with pytest.raises(BackendUnreachable):
            await events_of(client, RUN_ID)
        assert backend.connections == 1


async def test_a_spare_connection_is_closed_after_its_time() -> None:
    async with RawBackend() as backend, client_of(backend, spare_seconds=0.1) as client:
        await client.create_run(request())
        await backend.until(open_connections=0, requests=2)


async def test_all_connections_are_closed_with_the_client() -> None:
    async with RawBackend() as backend:
        async with client_of(backend) as client:
            await client.create_run(request())
            await backend.until(open_connections=1, requests=2)
        await backend.until(open_connections=0)


async def cancel(work: asyncio.Future[Any]) -> None:
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()


@pytest.mark.parametrize("created", [False, True], ids=["new connection", "spare connection"])
@pytest.mark.parametrize("stream", [None, Answer([OK]), Answer([CHUNKED]), Answer([CHUNKED + chunk(START)])])
async def test_a_cancelled_stream_leaves_no_connection(stream: Answer | None, created: bool) -> None:
    async with RawBackend([stream]) as backend, client_of(backend) as client:
        if created:
            await client.create_run(request())
        reading = asyncio.ensure_future(events_of(client, RUN_ID))
        await backend.until(open_connections=1, requests=3 if created else 1)
        await cancel(reading)
        await backend.until(open_connections=0)


async def test_a_stream_cancelled_between_two_events_hands_over_nothing_more() -> None:
    async with RawBackend([Answer([CHUNKED + chunk(START)])]) as backend, client_of(backend) as client:
        async with Reader(client, RUN_ID) as reader:
            assert [event.id for event in await reader.batch()] == ["1-0"]
        await backend.until(open_connections=0)


@pytest.mark.parametrize("call", ["create", "cancel"])
async def test_a_call_that_is_cancelled_for_good_leaves_no_connection(call: str) -> None:
    async with RawBackend(create=None, cancel=None) as backend, client_of(backend) as client:
        work: asyncio.Future[Any]
        if call == "create":
            work = asyncio.ensure_future(client.create_run(request()))
            await backend.until(open_connections=1, requests=2)
            # The first one waits for the answer: a run may have been made.
            work.cancel()
            await asyncio.sleep(0)
            assert not work.done()
        else:
            work = asyncio.ensure_future(client.cancel(RUN_ID))
            await backend.until(open_connections=1, requests=1)
        await cancel(work)
        await backend.until(open_connections=0)


# Ways to the backend


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS, and the root that its certificate comes from."""
    make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    return context, tmp_path / "root.crt"


async def test_a_turn_over_tls_takes_one_connection(
    tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, root = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    data = CHUNKED + chunks(BODY, 7)
    pieces = [data[at : at + 50] for at in range(0, len(data), 50)]
    async with RawBackend([Answer(pieces)], tls=context) as backend, client_of(backend) as client:
        assert said(await turn(client)) == "ab\U0001f600"
        await backend.until(open_connections=0)
        assert [(one.connection, one.number) for one in backend.requests[1:]] == [(2, 1), (2, 2)]


async def test_a_certificate_that_is_not_trusted_proves_that_nothing_was_sent(
    tls: tuple[ssl.SSLContext, Path], caplog: pytest.LogCaptureFixture
) -> None:
    async with RawBackend(tls=tls[0]) as backend, client_of(backend, 0.0) as client:
        with pytest.raises(BackendUnreachable, match="SSLCertVerificationError") as caught:
            await client.create_run(request())
        assert caught.value.nothing_sent
        assert not backend.requests


async def test_a_handshake_that_is_cancelled_leaves_no_connection() -> None:
    """The server takes the connection and says nothing."""
    async with RawBackend() as backend:
        client = HTTPBackend(backend.url.replace("http:", "https:"))
        reading = asyncio.ensure_future(events_of(client, RUN_ID))
        await backend.until(open_connections=1)
        await cancel(reading)
        await backend.until(open_connections=0)
        await client.aclose()


async def test_a_silent_handshake_ends_in_time_and_proves_that_nothing_was_sent() -> None:
    async with RawBackend() as backend:
        url = backend.url.replace("http:", "https:")
        client = HTTPBackend(url, reconnect_seconds=0.0, limits=BackendLimits(connect_seconds=0.2))
        with pytest.raises(BackendUnreachable) as caught:
            await client.create_run(request())
        assert caught.value.nothing_sent
        await backend.until(open_connections=0)
        await client.aclose()


async def test_the_parts_of_the_url_arrive_in_the_request() -> None:
    async with RawBackend([STREAM]) as backend:
        base = backend.url.replace("://", "://us%40er:pa:ss@") + "/a b/%7Ex/"
        client = HTTPBackend(base, token="t0ken")
        await client.stream(RunId("x?y#z \xfc%41/.."), lambda _: None, ("1 &2", ""))
        await client.aclose()
        [sent] = backend.requests
        path = "/a%20b/%7Ex/runs/x%3Fy%23z%20%C3%BC%2541%2F../events/sse"
        assert sent.line == f"GET {path}?after=1+%262 HTTP/1.1"
        assert sent.headers == {
            "host": f"127.0.0.1:{backend.port}",
            "user-agent": "agent-gateway",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "authorization": "Basic dXNAZXI6cGE6c3M=",
            "connection": "close",
        }


async def test_an_ipv6_address_is_called_by_its_name() -> None:
    async with RawBackend([STREAM], host="::1") as backend, client_of(backend) as client:
        assert said(await turn(client)) == "ab\U0001f600"
        assert {one.headers["host"] for one in backend.requests} == {f"[::1]:{backend.port}"}


@asynccontextmanager
async def deaf_port(host: str) -> AsyncGenerator[int]:
    """A port whose queue of new connections is full: who calls it gets no answer."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen(0)
        with socket.socket() as first:
            first.connect(listener.getsockname())
            yield listener.getsockname()[1]


def known_as(addresses: list[str]) -> Callable[[Dialer], object]:
    async def look_up(_: Dialer) -> list[str]:
        return addresses

    return look_up


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]])
async def test_an_address_that_refuses_is_passed_over(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dialer, "_look_up", known_as(addresses))
    async with RawBackend([STREAM] * 3) as backend:
        client = HTTPBackend(f"http://backend.test:{backend.port}", reconnect_seconds=0.0)
        for _ in range(3):
            assert said(await turn(client)) == "ab\U0001f600"
        assert {one.headers["host"] for one in backend.requests} == {f"backend.test:{backend.port}"}
        await backend.until(open_connections=0)
        await client.aclose()


async def test_while_an_address_does_not_answer_the_next_one_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with deaf_port("127.0.0.2") as port:
        server = RawBackend([STREAM] * 2, port=port)
        monkeypatch.setattr(Dialer, "_look_up", known_as(["127.0.0.2", "127.0.0.1"]))
        async with server as backend:
            # Less than the time in which the system gives up.
            limits = BackendLimits(connect_seconds=0.9)
            client = HTTPBackend(f"http://backend.test:{port}", reconnect_seconds=0.0, limits=limits)
            for _ in range(2):
                assert said(await turn(client)) == "ab\U0001f600"
            await backend.until(open_connections=0)
            await client.aclose()


async def test_addresses_that_all_refuse_prove_that_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setattr(Dialer, "_look_up", known_as(["127.0.0.1", "127.0.0.2"]))
    client = HTTPBackend(f"http://backend.test:{unused_port}", reconnect_seconds=0.0)
    with pytest.raises(BackendUnreachable, match="ConnectionRefusedError") as caught:
        await client.create_run(request())
    assert caught.value.nothing_sent
    await client.aclose()
