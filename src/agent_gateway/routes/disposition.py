"""The Content-Disposition of a form's part: which field it is, and how a file is named.

Forms write a name as it is. Some clients write it as mail does, in an encoded word (RFC 2047) or in the
extended notation `filename*` (RFC 5987, RFC 2231), beside the plain name or instead of it.
"""

import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Final, NamedTuple

from python_multipart.multipart import parse_options_header

MOST_BYTES: Final = 8192
"""Of a header that is searched for the extended notation."""

_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bBqQ]\?[^?]*\?=")


class Disposition(NamedTuple):
    """What a part is."""

    field: str
    filename: str | None
    """None: the part is no file."""


def read_disposition(header: bytes) -> Disposition:
    """Read the header of a part. A name in the extended notation wins, as everywhere in HTTP."""
    _, options = parse_options_header(header)
    field = options.get(b"name", b"").decode("utf-8", "replace")
    filename = _extended(header) if b"*" in header else None
    if filename is None and b"filename" in options:
        filename = _plain(options[b"filename"])
    return Disposition(field, filename)


def _plain(data: bytes) -> str:
    """A name as forms write it: three characters are escaped, all others are not."""
    name = data.decode("utf-8", "replace")
    if _ENCODED_WORD.search(name):
        try:
            return str(make_header(decode_header(name)))
        except (HeaderParseError, LookupError, ValueError):
            return name
    return name.replace("%22", '"').replace("%0D", " ").replace("%0A", " ")


def _extended(header: bytes) -> str | None:
    if len(header) > MOST_BYTES:
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
