"""Text in the head of a request: bytes that are not UTF-8 are refused, never replaced.

The framework replaces them by U+FFFD, which makes two users one.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import Request

from agent_gateway.errors import InvalidParam

HEADERS: Final = frozenset({b"idempotency-key", b"last-event-id", b"x-trace-id", b"x-trace-session-id"})
"""Headers whose values are stored or passed on."""
NOT_TEXT: Final = "must be UTF-8 text without NUL"


async def require_text(request: Request) -> None:
    """A dependency of all routes: InvalidParam, naming the parameter, for bytes that are no text.

    A NUL in a path is left to the routes: no id has one, so they find nothing.
    """
    query: bytes = request.scope["query_string"]
    if b"%" in query or not query.isascii():
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            checked(checked("query", unquote_to_bytes(name)), unquote_to_bytes(value))
    for header, value in request.scope["headers"]:
        if header in HEADERS:
            checked(header.decode(), value)
    path: bytes = request.scope["raw_path"]
    if b"%" in path and _decoded(unquote_to_bytes(path)) is None:
        wrong = [name for name, value in request.path_params.items() if "\ufffd" in value]
        raise InvalidParam(f"{', '.join(wrong) or 'path'}: {NOT_TEXT}")


def checked(name: str, value: bytes) -> str:
    """The text that these bytes are. Raises InvalidParam, naming the parameter."""
    text = _decoded(value)
    if text is None or "\x00" in text:
        raise InvalidParam(f"{name}: {NOT_TEXT}")
    return text


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
