"""Pages of a list are bounded in bytes as well as in rows: what is too much for one is on the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the texts of a page, about. An item that is larger than that is a page of its own."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    has_more: bool


def fitting(found: Sequence[tuple[str, int]], limit: int) -> list[str]:
    """Of the (id, bytes) of a list's next rows those that are a page: one at least."""
    ids: list[str] = []
    size = 0
    for row_id, row_size in found[:limit]:
        size += row_size
        if ids and size > PAGE_BYTES:
            break
        ids.append(row_id)
    return ids
