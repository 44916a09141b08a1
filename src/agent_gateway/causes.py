"""Why a turn failed, for its operator. Nothing here may be secret: it is stored and logged.

Clients get only the text of the failure's code (errors.FAILURES).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

MAX_MISTAKES: Final = 10
"""Mistakes of one request that are kept."""

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_.]{0,47}")
"""Names of errors and reasons have no digits and no dashes; keys have them."""
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Mistake(msgspec.Struct, frozen=True):
    """What a backend found wrong with a request: where and of what kind, never the value."""

    loc: str
    """The path of the field, with dots."""
    type: str


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong: `kind` is a name to search for, the rest is what is safe of the details."""

    kind: str
    """The class of an error, or what the gateway calls it."""
    status: int | None = None
    """HTTP status that a backend or a model provider answered with."""
    said: str = ""
    """The safe part of what was said about it, in words of the gateway or on its list of known words."""
    mistakes: tuple[Mistake, ...] = ()
    """Of a request that was refused as unprocessable."""

    def __str__(self) -> str:
        """One line, for the log and the terminal."""
        status = "" if self.status is None else f" {self.status}"
        mistakes = [f"{one.loc}: {one.type}" for one in self.mistakes]
        details = "; ".join([self.said, *mistakes] if self.said else mistakes)
        return f"{self.kind}{status}{f' ({details})' if details else ''}"


@dataclass(frozen=True, slots=True)
class Failure:
    """That a turn failed: the code that clients get, and the cause for the operator."""

    code: str
    """A key of errors.FAILURES."""
    cause: Cause


def plain_word(text: object) -> str:
    """The text if it is a plain word, as names of errors are; else empty: it may hold credentials."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else ""


def mistakes_in(details: Sequence[object]) -> tuple[Mistake, ...]:
    """The mistakes in the `detail` list of a 422. `input` and `msg` repeat the request and are not read."""
    found = [
        Mistake(_path(detail.get("loc")), plain_word(detail.get("type")) or "?")
        for detail in details
        if isinstance(detail, dict)
    ]
    return tuple(dict.fromkeys(found))[:MAX_MISTAKES]


def _path(loc: object) -> str:
    parts = loc if isinstance(loc, list) else []
    return ".".join(_part(part) for part in parts[:32]) or "?"


def _part(part: object) -> str:
    if isinstance(part, int) and not isinstance(part, bool):
        return str(part)
    return part if isinstance(part, str) and _FIELD.fullmatch(part) else "?"
