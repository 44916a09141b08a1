"""Readers of JSON from other programs: a missing value, or one of another kind, is empty, never an error."""

import json
import math
from typing import Final

import msgspec

UNREADABLE: Final = (ValueError, RecursionError)
"""The errors for bytes that are not JSON: those of msgspec and of json are ValueErrors."""


def read_object(raw: msgspec.Raw | msgspec.UnsetType) -> dict[str, object]:
    """A JSON object; empty when it is absent, malformed or something else.

    Its texts may hold halves of surrogate pairs.
    """
    if isinstance(raw, msgspec.UnsetType):
        return {}
    try:
        return as_dict(read_json(raw))
    except UNREADABLE:
        return {}


def read_json(raw: bytes | msgspec.Raw) -> object:
    """A JSON value; raises one of UNREADABLE. Halves of surrogate pairs, which msgspec refuses, are kept."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return loads(bytes(raw))


def loads(text: str | bytes) -> object:
    """JSON as Python writes it, with halves of surrogate pairs; NaN and infinities become null."""
    return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def as_dict(value: object) -> dict[str, object]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_str(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_list(value: object) -> list[object]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []
