"""The head of a request: bounded, and parsed as a whole."""

import re
from typing import Final
from urllib.parse import unquote

import httptools

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request line and all headers; also of the trailers after a chunked body."""
MAX_HEADERS: Final = 256
END: Final = re.compile(rb"\n\r?\n")
"""The end of a head. It also matches lone LFs, which the parser then refuses."""
CHUNKED: Final = -1
"""Stands for the size of a chunked body."""


class Refused(Exception):
    """A request that this server refuses, with the status, code and text of the response."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Head:
    """A parsed head; raises Refused.

    An upgrade is ignored, as HTTP allows: the request is answered as if it did not ask for one.
    """

    def __init__(self, block: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case."""
        self._url = b""
        self._complete = 0
        self._more = False
        self.version = ""
        self.method = ""
        self.keep_alive = False
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(block)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise malformed() from None
        finally:
            # The parser refers to this head, so it would keep it alive after the request.
            del self._parser
        if self._complete != 1 or self._more:
            # The parser finds another end of this head.
            raise malformed()
        if self.version not in ("1.0", "1.1"):
            raise Refused(505, "http_version_not_supported", "HTTP/1.1 is spoken here.")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise malformed()
        self.body_size = self._body_size()
        self.path, self.raw_path, self.query = _target(self._url)

    def expects_continue(self) -> bool:
        """Whether the client waits for 100 Continue before it sends the body."""
        return self.version == "1.1" and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )

    def _body_size(self) -> int:
        """Bytes of the body, or CHUNKED. A head that two parsers could understand differently is refused."""
        sizes = [value for name, value in self.headers if name == b"content-length"]
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings:
            if (
                sizes
                or self.version == "1.0"
                or [coding.strip().lower() for coding in codings] != [b"chunked"]
            ):
                raise malformed()
            return CHUNKED
        if not sizes:
            return 0
        size = sizes[0].strip()
        if len(sizes) > 1 or not size.isdigit() or len(size) > 18:
            raise malformed()
        return int(size)

    # -- what the parser calls ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice a second message in the bytes of the head."""
        self._more = self._complete > 0

    def on_url(self, url: bytes) -> None:
        """The target of the request line."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if len(self.headers) >= MAX_HEADERS:
            raise too_large()
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete. After this callback the parser drops its state."""
        self._complete += 1
        self.version = self._parser.get_http_version()
        self.method = self._parser.get_method().decode("ascii")
        self.keep_alive = self.version == "1.1" and self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Notice a body in the bytes of the head."""
        self._more = True


def malformed() -> Refused:
    """The refusal of bytes that are no HTTP, or that could be read in two ways."""
    return Refused(400, "bad_request", "The request is not valid HTTP.")


def too_large() -> Refused:
    """The refusal of a head that is too long."""
    return Refused(431, "request_head_too_large", "The request line and its headers are too large.")


def too_slow() -> Refused:
    """The refusal of a client that sends too slowly."""
    return Refused(408, "request_timeout", "The request did not come in time.")


def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query of a request's target."""
    try:
        parsed = httptools.parse_url(url)
        raw = parsed.path or b"/"
        path = raw.decode("ascii")
    except (httptools.HttpParserError, UnicodeDecodeError):
        raise malformed() from None
    return unquote(path) if "%" in path else path, raw, parsed.query or b""
