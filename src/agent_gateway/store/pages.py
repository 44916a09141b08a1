"""Pages of a list, bounded in bytes as well as in rows: what does not fit is on the next page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Approximate bytes of the texts of a page. A larger item is a page of its own."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    has_more: bool


def fitting(found: Sequence[tuple[str, int]], limit: int, max_bytes: int) -> list[str]:
    """The first ids of (id, bytes) rows that fit on a page: at least one, and no more than `limit`."""
    ids: list[str] = []
    size = 0
    for row_id, row_size in found[:limit]:
        size += row_size
        if ids and size > max_bytes:
            break
        ids.append(row_id)
    return ids
