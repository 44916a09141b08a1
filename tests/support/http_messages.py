"""Requests made up by hypothesis: of the grammar, and then with bytes changed."""

from hypothesis import strategies as st

from tests.support.raw_http import Seen, chunked, request

HIDDEN = request("DELETE", "/hidden")
"""A request within a body, for servers that take a body for a request."""
UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "websocket": (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "a proxy's lines": ("Connection: upgrade", "Upgrade: "),
    "another": ("Upgrade: TLS/1.0, anything", "Connection: keep-alive, Upgrade"),
}


texts = st.sampled_from([b"", b"hello", HIDDEN, b"0\r\n\r\n", HIDDEN * 20, b"\r\n" * 3])


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, Seen]:
    """The bytes of a request of the grammar, and what an application has to see."""
    path = f"/{draw(st.integers(0, 99))}"
    body = draw(texts)
    extra = draw(st.sampled_from([(), *UPGRADES.values(), ("Expect: 100-continue",), ("X: é", "x: y")]))
    if draw(st.booleans()):
        return request("POST", path, *extra, body=body), Seen("POST", path, body, True)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    sent = chunked(
        *pieces,
        extension=draw(st.sampled_from([b"", b";a", b' ; a="b"'])),
        trailers=draw(st.sampled_from([b"", b"a: b\r\n", b"Host: x\r\nContent-Length: 3\r\n"])),
    )
    return request("PUT", path, *extra, "Transfer-Encoding: chunked") + sent, Seen("PUT", path, body, True)


BITS = [b"\r\n", b"\n", b"\r", b" ", b"\t", b"0", b"5", b";", b":", b"chunked", b"Content-Length: 3\r\n"]
BITS += [b"Transfer-Encoding: chunked\r\n", b"\x00", b"\x0b", b",", b"HTTP/1.1", HIDDEN, b"0\r\n\r\n"]

Change = tuple[int, int, bytes]
"""Where, how many bytes are taken out, and what is put there."""


def changes() -> st.SearchStrategy[list[Change]]:
    """The ways to break bytes."""
    one = st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(BITS))
    return st.lists(one, min_size=1, max_size=4)


def changed(data: bytes, changes: list[Change]) -> bytes:
    """The bytes with these changes."""
    for at, cut, bit in changes:
        place = at % (len(data) + 1)
        data = data[:place] + bit + data[place + cut :]
    return data
