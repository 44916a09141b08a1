"""A multipart body, parsed as it arrives: its file is never held in memory or on disk here."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Final, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from agent_gateway.errors import InvalidParam, UploadRefused
from agent_gateway.routes.http.disposition import read_disposition, read_filename
from agent_gateway.routes.http.request_text import checked

FILE_FIELD: Final = "file"
MAX_FIELD_BYTES: Final = 64 * 1024
PART_COST: Final = 256
"""MAX_FIELD_BYTES is for all fields but the file together; each part counts PART_COST bytes more."""
MAX_OTHER_BYTES: Final = 512 * 1024
"""Bytes of a form besides those of its file: one read of the server, and the fields."""


class FilePart(NamedTuple):
    """The headers of the file, which come before its bytes."""

    filename: str
    content_type: str


class _End(NamedTuple):
    """The end of the file's bytes."""


class MultipartBody:
    """Reads `body` up to the file, then the bytes of the file, then the rest; in that order.

    Raises InvalidParam for a body that is not multipart, and UploadRefused for a second file.
    """

    def __init__(self, body: AsyncIterator[bytes], content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        self.fields: dict[str, str] = {}
        """The fields that came so far; all of them after `finish`."""
        self._body = body
        self._pieces: deque[FilePart | bytes | _End] = deque()
        """Parsed and not yet handed out: no more than one chunk of the body holds."""
        self._part: _Part | None = None
        self._seen_file = False
        self._field_bytes = 0
        self._file_bytes = 0
        self._other_bytes = 0
        self._complete = False
        self._header = b""
        self._parser: MultipartParser | None = None
        if kind == b"multipart/form-data" and (boundary := options.get(b"boundary")):
            self._parser = self._new_parser(boundary)

    async def file(self) -> FilePart:
        """The headers of the file; UploadRefused when there is none."""
        while not self._pieces:
            if self._parser is None or not await self._read():
                raise UploadRefused("no_file_uploaded", "The form has no file in its field 'file'.")
        part = self._pieces.popleft()
        assert isinstance(part, FilePart)
        return part

    async def data(self) -> AsyncGenerator[bytes]:
        """The bytes of the file."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                if isinstance(piece, _End):
                    return
                assert isinstance(piece, bytes)
                yield piece
            if not await self._read():
                raise _not_multipart()

    async def finish(self) -> None:
        """Read the rest after the file."""
        while await self._read():
            pass
        if not self._complete:
            raise _not_multipart()

    async def _read(self) -> bool:
        """Parse the next chunk; False at the end of the body."""
        chunk = await anext(self._body, None)
        if chunk is None or self._parser is None:
            return False
        before = self._file_bytes
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise _not_multipart() from None
        self._other_bytes += len(chunk) - (self._file_bytes - before)
        if self._other_bytes > MAX_OTHER_BYTES:
            raise InvalidParam("The form has too much besides the file.")
        return True

    def _new_parser(self, boundary: bytes) -> MultipartParser:
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        try:
            return MultipartParser(boundary, callbacks)
        except FormParserError:
            raise _not_multipart() from None

    # -- called by the parser -----------------------------------------------------------------------

    def _on_part_begin(self) -> None:
        self._part = _Part()
        # Empty parts count, too: endless parts must hit the limit.
        self._count(PART_COST)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        name = self._header.lower()
        self._part.headers[name] = self._part.headers.get(name, b"") + data[start:end]

    def _on_header_end(self) -> None:
        self._header = b""

    def _on_headers_finished(self) -> None:
        assert self._part is not None
        part = self._part
        disposition = part.headers.get(b"content-disposition", b"")
        part.name, has_file = read_disposition(disposition)
        if not has_file:
            return
        if self._seen_file:
            raise UploadRefused("too_many_files", "Only one file can be uploaded at once.")
        # A file in another field is read and ignored.
        part.is_file = self._seen_file = part.name == FILE_FIELD
        part.is_ignored = not part.is_file
        if part.is_file:
            content_type = part.headers.get(b"content-type", b"").decode("latin-1")
            self._pieces.append(FilePart(read_filename(disposition), content_type))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if self._part.is_file:
            self._file_bytes += end - start
            self._pieces.append(data[start:end])
            return
        self._count(end - start)
        if not self._part.is_ignored:
            self._part.value += data[start:end]

    def _on_part_end(self) -> None:
        assert self._part is not None
        if self._part.is_file:
            self._pieces.append(_End())
        elif not self._part.is_ignored:
            self.fields[self._part.name] = checked(self._part.name, bytes(self._part.value))

    def _on_end(self) -> None:
        self._complete = True

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MAX_FIELD_BYTES:
            raise InvalidParam("The fields besides the file are too large.")


class _Part:
    """The part that is being parsed."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.name = ""
        self.value = bytearray()
        self.is_file = False
        self.is_ignored = False


def _not_multipart() -> InvalidParam:
    return InvalidParam("The body is not valid multipart/form-data.")
