"""The Content-Disposition of a form's part: which field it is, and how a file is named.

Forms write a name as it is. Some clients write it as mail does, in an encoded word (RFC 2047) or in the
extended notation `filename*` (RFC 5987, RFC 2231), beside the plain name or instead of it.
"""

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Final, NamedTuple
from urllib.parse import quote

from python_multipart.multipart import parse_options_header

MAX_HEADER_BYTES: Final = 4096
"""Of a header whose name is decoded: the time of the mail decoder grows with the square of the length."""

_EXTENDED = re.compile(rb";[ \t]*filename\*", re.IGNORECASE)
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bBqQ]\?[^?]*\?=")


class Disposition(NamedTuple):
    """The field of a part, and whether it is a file."""

    field: str
    is_file: bool


def read_disposition(header: bytes) -> Disposition:
    """The field of a part. Cheap for every header, since each part has one."""
    _, options = parse_options_header(header)
    field = options.get(b"name", b"").decode("utf-8", "replace")
    return Disposition(field, b"filename" in options or _EXTENDED.search(header) is not None)


def read_filename(header: bytes) -> str:
    """The name of the file in a part. A name in the extended notation wins, as everywhere in HTTP."""
    extended = _extended(header) if b"*" in header else None
    if extended is not None:
        return extended
    _, options = parse_options_header(header)
    name = options.get(b"filename", b"").decode("utf-8", "replace")
    return _plain(name) if len(header) <= MAX_HEADER_BYTES else name


def content_disposition(name: str, inline: bool) -> str:
    """The header of a response that is a file: shown in the browser, or saved."""
    kind = "inline" if inline else "attachment"
    plain = "".join(letter if letter.isascii() and letter not in '"\\%' else "_" for letter in name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _plain(name: str) -> str:
    """A name as forms write it: only three characters are escaped."""
    if _ENCODED_WORD.search(name):
        try:
            return str(make_header(decode_header(name)))
        except (HeaderParseError, LookupError, ValueError):
            return name
    return name.replace("%22", '"').replace("%0D", " ").replace("%0A", " ")


def _extended(header: bytes) -> str | None:
    if len(header) > MAX_HEADER_BYTES:
        return None
    message = Message()
    message["Content-Disposition"] = header.decode("latin-1")
    for name, value in message.get_params([], header="content-disposition"):
        if name.lower() == "filename" and isinstance(value, tuple):
            charset, _, text = value
            return _decoded(text, charset or "utf-8") or None
    return None


def _decoded(text: str, charset: str) -> str:
    data = text.encode("latin-1", "replace")
    try:
        return data.decode(charset)
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace")
