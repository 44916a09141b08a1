"""Readers of JSON that others wrote: what is missing or of another kind is empty, never an error."""

from typing import Any, Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_object(raw: msgspec.Raw | msgspec.UnsetType) -> dict[str, Any]:
    """A JSON object; empty when it is absent, malformed or something else."""
    if isinstance(raw, msgspec.UnsetType):
        return {}
    try:
        return as_dict(msgspec.json.decode(raw))
    except UNREADABLE:
        return {}


def as_dict(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_str(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_list(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []
