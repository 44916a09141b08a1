"""The decoder of the backend's event stream, and of the events inside."""

import json
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.backend.lenient import read_object
from agent_gateway.backend.protocol import EMPTY_OBJECT, RunEvent, decode_event
from agent_gateway.backend.sse import Frame, FrameDecoder
from agent_gateway.errors import BackendGarbage
from tests.support.paths import RECORDED

STREAMS = sorted(RECORDED.glob("*.sse"))
BOM = b"\xef\xbb\xbf"


def decode(*chunks: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        pytest.param(b"id: 1-0\nevent: a\ndata: {}\n\n", [(b"1-0", b"a", b"{}")], id="plain"),
        pytest.param(b"id: 1-0\r\nevent: a\r\ndata: {}\r\n\r\n", [(b"1-0", b"a", b"{}")], id="crlf"),
        pytest.param(b"data: 1\n\r\ndata: 2\r\n\n", [(b"", b"", b"1"), (b"", b"", b"2")], id="mixed"),
        pytest.param(
            BOM + b"id:  1 \nevent: a: b\ndata: \x85{\r}\n\n",
            [(b" 1 ", b"a: b", b"\x85{\r}")],
            id="odd characters in the usual form",
        ),
        pytest.param(
            b"id: 1\nevent: a\ndata: x\ndata: y\n\nid: 2\ndata: z\nevent: b\n\n",
            [(b"1", b"a", b"x\ny"), (b"2", b"b", b"z")],
            id="nearly the usual form",
        ),
        pytest.param(
            b"xid: 1\nevent: a\ndata: x\n\nid: 2\nevent: b\ndata: y\n\n",
            [(b"", b"a", b"x"), (b"2", b"b", b"y")],
            id="another field that ends in the usual one",
        ),
        pytest.param(BOM + b"data: x\n\n", [(b"", b"", b"x")], id="bom"),
        pytest.param(b"data: x\n\n" + BOM + b"data: y\n\n", [(b"", b"", b"x")], id="bom in the middle"),
        pytest.param(b": keepalive\n\n: again\n\ndata: x\n\n", [(b"", b"", b"x")], id="comments"),
        pytest.param(b": inside\ndata: x\n:y\n\n", [(b"", b"", b"x")], id="comment in a frame"),
        pytest.param(b"data: a\ndata:b\ndata\ndata:  c\n\n", [(b"", b"", b"a\nb\n\n c")], id="data lines"),
        pytest.param(b"data:\n\n", [(b"", b"", b"")], id="empty data"),
        pytest.param(b"id: 1\nevent: a\n\n", [], id="no data"),
        pytest.param(b"\n\n\n\ndata: x\n\n\n\n\n", [(b"", b"", b"x")], id="blank lines"),
        pytest.param(b"retry: 5\nfoo: bar\ndata: x\n\n", [(b"", b"", b"x")], id="unknown fields"),
        pytest.param(b"data: x", [], id="half a frame"),
        pytest.param(b"data: x\n", [], id="no blank line"),
        pytest.param(b"data: a\rb\n\n", [(b"", b"", b"a\rb")], id="a lone cr ends no line"),
        pytest.param(
            "data: \u2028\u2029\x85\x0b\x0c\n\n".encode(),
            [(b"", b"", "\u2028\u2029\x85\x0b\x0c".encode())],
            id="unicode line ends are characters",
        ),
    ],
)
def test_a_stream_is_decoded_into_frames(stream: bytes, frames: list[Frame]) -> None:
    assert decode(stream) == frames
    for place in range(len(stream) + 1):
        assert decode(stream[:place], stream[place:]) == frames
    assert decode(*(bytes([byte]) for byte in stream)) == frames


LINES = st.sampled_from(
    [b"data: \xe2\x80\xa8\xf0\x9f\x98\x80", b"data:", b"id: 7-0", b"event: e", b": c", b"", b"", b"\rdata: x"]
)
ENDS = st.sampled_from([b"\n", b"\r\n"])


@given(
    st.sampled_from([b"", BOM]),
    st.lists(st.tuples(LINES, ENDS), max_size=25),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_any_split_gives_the_same_frames(
    start: bytes, lines: list[tuple[bytes, bytes]], places: list[int]
) -> None:
    stream = start + b"".join(line + end for line, end in lines)
    assert decode(*cut(stream, places)) == decode(stream)


@given(st.lists(st.text().filter(lambda text: "\r" not in text and "\n" not in text), min_size=1))
def test_written_frames_are_read_back(texts: list[str]) -> None:
    stream = "".join(f"id: {number}\ndata: {text}\n\n" for number, text in enumerate(texts)).encode()
    expected = [(str(number).encode(), b"", text.encode()) for number, text in enumerate(texts)]
    assert decode(*cut(stream, [len(stream) // 3, len(stream) // 2])) == expected


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_recorded_streams_are_decoded(path: Path) -> None:
    stream = path.read_bytes()
    frames = decode(stream)
    for size in (1, 7, 1000):
        assert decode(*(stream[start : start + size] for start in range(0, len(stream), size))) == frames
    for frame in frames:
        cursor, kind, data = frame
        event = decode_event(data, cursor)
        assert event.id.encode() == cursor
        assert event.type.encode() == kind
        assert json.loads(bytes(event.data)) == json.loads(data)["data"]


def test_huge_frames_cost_linear_time() -> None:
    def seconds(megabytes: int) -> float:
        stream = b"data: " + b"x" * megabytes * 1_000_000 + b"\n\n"
        chunks = [stream[start : start + 16_384] for start in range(0, len(stream), 16_384)]
        begin = time.thread_time()
        assert len(decode(*chunks)[0][2]) == megabytes * 1_000_000
        return time.thread_time() - begin

    # Searching all of it again with every chunk would cost 256 times as much, not 16 times.
    assert min(seconds(16) for _ in range(3)) < 80 * max(min(seconds(1) for _ in range(3)), 0.003)


def event_bytes(data: str, head: str = '"id":"1-0","type":"t"') -> bytes:
    return f'{{{head},"data":{data}}}'.encode()


def test_a_delta_is_read_from_the_envelope() -> None:
    event = decode_event(
        b'{"id":"1-0","type":"pydantic_ai_event","data":{},"agent_message_delta":"a\\u0000b"}'
    )
    assert event.agent_message_delta == "a\x00b"
    assert decode_event(event_bytes("{}")).agent_message_delta is msgspec.UNSET
    assert decode_event(b'{"id":"1-0","type":"t"}') == RunEvent(id="1-0", type="t", data=EMPTY_OBJECT)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(rb'{"x":"\ud800 \udc00a"}', {"x": "\ud800 \udc00a"}, id="lone surrogates"),
        pytest.param(rb'{"x":"\ud83d\ude00\ud800"}', {"x": "\U0001f600\ud800"}, id="a pair and a lone one"),
        pytest.param(rb'{"\udfff":[{"y":"\u0000\udfff"}]}', {"\udfff": [{"y": "\x00\udfff"}]}, id="deep"),
        pytest.param(b'{"x":[NaN,-Infinity,1e999]}', {"x": [None, None, None]}, id="not numbers"),
        pytest.param(b'{"x":"\xff\xfe"}', {"x": "\ufffd\ufffd"}, id="broken UTF-8"),
        pytest.param(
            b'{"x":NaN,"y":123456789012345678901234567890}', {"x": None, "y": int("1234567890" * 3)}, id="big"
        ),
    ],
)
def test_data_that_msgspec_refuses_is_repaired(data: bytes, expected: object) -> None:
    event = decode_event(b'{"id":"1-0","type":"t","agent_message_delta":"d","data":' + data + b"}")
    assert read_object(event.data) == expected
    assert json.loads(bytes(event.data).decode()) == expected
    assert (event.id, event.type, event.agent_message_delta) == ("1-0", "t", "d")


def test_the_repair_keeps_absent_keys_absent() -> None:
    event = decode_event(rb'{"id":null,"type":"\ud800"}', b"5-0")
    assert event == RunEvent(id="5-0", type="\ufffd", data=EMPTY_OBJECT)


def test_an_event_without_an_id_takes_that_of_its_frame() -> None:
    assert decode_event(b'{"type":"t"}', b"9-1").id == "9-1"
    assert decode_event(b'{"type":"t","id":"1-0"}', b"9-1").id == "1-0"
    with pytest.raises(BackendGarbage):
        decode_event(b'{"type":"t"}')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"<html>",
        b'{"id":"1-0","type":5}',
        b'{"id":5}',
        b"\xff",
        b"\x00",
    ],
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BackendGarbage) as caught:
        decode_event(data, b"1-0")
    assert caught.value.__cause__ is None


def test_endlessly_nested_json_is_refused() -> None:
    with pytest.raises(BackendGarbage):
        decode_event(event_bytes("[" * 200_000 + "]" * 200_000))
