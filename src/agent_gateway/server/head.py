"""The head of a request: found in the bytes of a connection, parsed at once, bounded."""

import re
from typing import Final
from urllib.parse import unquote

import httptools

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request line and all headers; also of the trailers after a chunked body."""
MAX_HEADERS: Final = 256
END: Final = re.compile(rb"\n\r?\n")
"""Where a head ends. A lone LF is none of the grammar: it is found here, and refused by the parser."""
CHUNKED: Final = -1
"""Size of a body that says itself where it ends."""


class Refused(Exception):
    """Bytes that are no request which this server takes; a status and the code and text of its body."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Head:
    """A parsed head; raises Refused.

    An upgrade is ignored, as the grammar allows: the request is answered as if it had not been asked for.
    """

    def __init__(self, block: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in small letters."""
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
            # It knows this head, and so would outlive the request.
            del self._parser
        if self._complete != 1 or self._more:
            # The parser does not agree about where this head ends.
            raise malformed()
        if self.version not in ("1.0", "1.1"):
            raise Refused(505, "http_version_not_supported", "HTTP/1.1 is spoken here.")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise malformed()
        self.body_size = self._body_size()
        self.path, self.raw_path, self.query = _target(self._url)

    def expects_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body."""
        return self.version == "1.1" and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )

    def _body_size(self) -> int:
        """Bytes of the body, or CHUNKED. Whatever two readers could understand differently is refused."""
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
        """Nothing follows a head in what the parser is given."""
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
        """The end: the parser forgets with it what it has understood."""
        self._complete += 1
        self.version = self._parser.get_http_version()
        self.method = self._parser.get_method().decode("ascii")
        self.keep_alive = self.version == "1.1" and self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Nothing follows a head in what the parser is given."""
        self._more = True


def malformed() -> Refused:
    """The refusal of what is no HTTP, or could be read in two ways."""
    return Refused(400, "bad_request", "The request is not valid HTTP.")


def too_large() -> Refused:
    """The refusal of a head without end."""
    return Refused(431, "request_head_too_large", "The request line and its headers are too large.")


def too_slow() -> Refused:
    """The refusal of who does not send on."""
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
