"""Finds the exact end of a request's body. The bytes after it are the next request."""

import re
from typing import Final, Protocol

from agent_gateway.server.head import MAX_HEAD, malformed

MAX_LINE: Final = 4096
"""Bytes of the size line before a chunk."""
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class Body(Protocol):
    """A body that is being read."""

    complete: bool
    left: int
    """Bytes that are known to be missing."""

    def take(self, buffer: bytearray) -> bytes:
        """Remove the body's bytes from the front of the buffer; returns their data. Raises Refused."""


class SizedBody:
    """A body with a known size."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.complete = size == 0

    def take(self, buffer: bytearray) -> bytes:
        """Remove the body's bytes from the front of the buffer; returns their data."""
        data = bytes(buffer[: self.left])
        del buffer[: len(data)]
        self.left -= len(data)
        self.complete = self.left == 0
        return data


class ChunkedBody:
    """Chunks, each after a line with its size; extensions and trailers are discarded (RFC 9112, 7.1).

    Bytes outside of the grammar are refused, because another parser might find another end.
    """

    def __init__(self) -> None:
        self.complete = False
        self.left = 0
        """Bytes of this chunk that are missing."""
        self._in_chunk = False
        self._in_trailers = False
        self._dropped = 0

    def take(self, buffer: bytearray) -> bytes:
        """Remove the body's bytes from the front of the buffer; returns their data. Raises Refused."""
        pieces: list[bytes] = []
        at = 0
        while not self.complete:
            if self._in_chunk:
                piece = bytes(buffer[at : at + self.left])
                at += len(piece)
                self.left -= len(piece)
                pieces.append(piece)
                end = bytes(buffer[at : at + 2])
                if self.left or not b"\r\n".startswith(end):
                    if self.left:
                        break
                    raise malformed()
                if len(end) < 2:
                    break
                at += 2
                self._in_chunk = False
                continue
            line = self._line(buffer, at)
            if line is None:
                break
            at += len(line) + 2
            self._understand(line)
        del buffer[:at]
        return b"".join(pieces)

    def _line(self, buffer: bytearray, at: int) -> bytes | None:
        """The next line without its end; None when it has not come."""
        end = buffer.find(b"\n", at, at + MAX_LINE)
        if end < 0:
            if len(buffer) - at >= MAX_LINE:
                raise malformed()
            return None
        line = bytes(buffer[at : end + 1])
        if not line.endswith(b"\r\n"):
            raise malformed()
        return line[:-2]

    def _understand(self, line: bytes) -> None:
        if self._in_trailers:
            self._drop(len(line) + 2)
            self.complete = not line
            if line and not _TRAILER.fullmatch(line):
                raise malformed()
            return
        size = _SIZE.fullmatch(line)
        if size is None:
            raise malformed()
        self._drop(len(line) - len(size[1]))
        self.left = int(size[1], 16)
        self._in_chunk = self.left > 0
        self._in_trailers = self.left == 0

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > MAX_HEAD:
            raise malformed()
