"""Server-sent events: bytes in, frames out, however the bytes were cut.

It works on bytes: text would also be split into lines at U+2028 and similar characters, which are ordinary
inside JSON. It differs from the standard on purpose: a carriage return alone ends no line, `retry:` is
ignored, and an id belongs to its own frame only.
"""

import re
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_USUAL: Final = re.compile(rb"(?m:^)id: (.*)\nevent: (.*)\ndata: (.*)\n\n")
"""A whole frame as known backends write it, of four line ends. It is read like any other, but all at once."""


Frame = tuple[bytes, bytes, bytes]
"""The id, the type and the data of one dispatched event, its data lines joined by LF; b"" for none."""


class FrameDecoder:
    """Incremental decoder of one stream. At the end of the stream it may hold half a frame: drop it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._begun = False
        self._held_cr = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that this chunk completes, in order. Frames without a data line are dropped."""
        if self._held_cr or b"\r" in chunk:
            chunk = self._without_cr(chunk)
        # Whole frames, as nearly always, need not pass the buffer.
        block = chunk if not self._buffer and chunk.endswith(b"\n\n") else self._buffered(chunk)
        if not self._begun and block:
            self._begun = True
            block = block.removeprefix(_BOM)
        usual: list[Frame] = _USUAL.findall(block)
        if 4 * len(usual) == block.count(b"\n"):
            return usual
        return [frame for section in block.split(b"\n\n") if (frame := _frame(section))]

    def _buffered(self, chunk: bytes) -> bytes:
        """What is complete with this chunk, up to the blank line at its end; empty for half a frame."""
        buffer = self._buffer
        buffer += chunk
        # Only bytes not seen before are searched, so a huge frame in small pieces costs linear time.
        end = buffer.rfind(b"\n\n", self._searched)
        if end < 0:
            self._searched = max(len(buffer) - 1, 0)
            return b""
        block = bytes(buffer[: end + 2])
        del buffer[: end + 2]
        self._searched = 0
        return block

    def _without_cr(self, chunk: bytes) -> bytes:
        """CRLF becomes LF. A CR at the end is held back until the next byte shows what it is."""
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n")


def _frame(section: bytes) -> Frame | None:
    cursor = event = b""
    data: list[bytes] = []
    for line in section.split(b"\n"):
        # A comment has an empty name and falls through.
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"id":
            cursor = value
        elif name == b"event":
            event = value
    return (cursor, event, b"\n".join(data)) if data else None
