"""How commands read and write values: spans of time, times, tables, JSON."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from agent_gateway.errors import ConfigError

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_DAYS: Final = 36500


def duration(text: str, option: str) -> float:
    """The seconds of a span like 90s, 15m, 2h or 7d, which was given with an option. Raises ConfigError."""
    found = re.fullmatch(r"([1-9]\d{0,8})([smhd])", text.strip())
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_DAYS * SECONDS["d"]:
        raise ConfigError(f"{option} {text!r} is no span of time: write 90s, 15m, 2h or 7d")
    return float(seconds)


def span(seconds: float) -> str:
    """A span of time to read: `0.4s`, `12s`, `3m05s`, `2h14m`, `9d03h`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02}h"


def minute(time: datetime) -> str:
    """A time in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%MZ")


def second(time: datetime) -> str:
    """A time in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ")


def printable(value: object) -> str:
    """The text of a value without what a terminal would obey: ids come from clients and backends."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def without_password(url: str) -> str:
    """A URL without the name and password before its host, and without its query, which may hold keys."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Lines of cells; each column is as wide as its widest cell."""
    cells = [head, *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_values(values: Iterable[tuple[str, object]]) -> None:
    """Lines of a name and its value; a value that is None has no line."""
    for name, value in values:
        if value is not None:
            print(f"{name + ':':<15}{printable(value)}".rstrip())


def print_json(values: Iterable[object]) -> None:
    """One JSON object per line."""
    for value in values:
        print(msgspec.json.encode(value).decode())
