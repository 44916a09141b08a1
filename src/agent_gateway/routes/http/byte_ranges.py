"""The bytes of a file that a request wants: `Range`, `If-Range` and `If-None-Match`."""

from typing import Annotated

from fastapi import Depends, Header

RangeHeader = Annotated[
    str | None, Header(description="One range of bytes, `bytes=0-99`; others are ignored.", alias="Range")
]
IfRange = Annotated[
    str | None, Header(description="The `ETag` of the file for which the range is meant.", alias="If-Range")
]
IfNoneMatch = Annotated[
    str | None, Header(description="The `ETag` of the file that the client has.", alias="If-None-Match")
]


class WantedBytes:
    """Which bytes of a file a request wants, and on which condition."""

    def __init__(
        self, wanted: RangeHeader = None, meant_for: IfRange = None, has: IfNoneMatch = None
    ) -> None:
        self._wanted = wanted
        self._meant_for = meant_for
        self._has = has

    def not_modified(self, etag: str) -> bool:
        """The client has this very file."""
        has = [one.strip().removeprefix("W/") for one in (self._has or "").split(",")]
        return etag in has or "*" in has

    def span(self, etag: str, size: int) -> tuple[int, int] | None:
        """Start and end of the wanted range; None for the whole file."""
        return byte_range(self._wanted, size) if self._meant_for in (None, etag) else None


WantedBytesDep = Annotated[WantedBytes, Depends()]


def byte_range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of the one range that a header wants; None for all, also when it makes no sense.

    One that begins behind the end of the file is returned as it is.
    """
    unit, _, span = (wanted or "").partition("=")
    first, dash, last = span.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash:
        return None
    if not all(part.isascii() and part.isdecimal() and len(part) < 16 for part in (first, last) if part):
        return None
    if not first and not last:
        return None
    start = int(first) if first else max(0, size - int(last))
    end = int(last) + 1 if first and last else max(size, start + 1)
    return (start, min(end, max(size, start))) if start < end else None
