"""Pages of a list are bounded in bytes as well as in rows: what is too much for one is on the next."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Row, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the texts of a page, about. An item that is larger than that is a page of its own."""


class octets(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it stands for
    """Bytes of a text, or of the text of a JSON value; 0 for NULL."""

    name = "octets"
    inherit_cache = True
    type = BigInteger()


@compiles(octets, "postgresql")
def _octets_postgresql(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce(octet_length(CAST({compiler.process(element.clauses, **kw)} AS TEXT)), 0)"


@compiles(octets, "sqlite")
def _octets_sqlite(element: octets, compiler: SQLCompiler, **kw: Any) -> str:
    # Not octet_length: there is none before SQLite 3.43.
    return f"coalesce(length(CAST({compiler.process(element.clauses, **kw)} AS BLOB)), 0)"


def octets_of(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes of all these texts of a row."""
    size: ColumnElement[int] = octets(columns[0])
    for column in columns[1:]:
        size += octets(column)
    return size


def octets_of_rows(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes of all these texts, over many rows."""
    return func.coalesce(func.sum(octets_of(*columns)), 0)


def fitting(found: Sequence[Row[*tuple[Any, ...]]], limit: int) -> list[str]:
    """Of the (id, bytes) of a list's next rows those that are a page: one at least."""
    ids: list[str] = []
    size = 0
    for row_id, row_size in found[:limit]:
        size += row_size
        if ids and size > PAGE_BYTES:
            break
        ids.append(row_id)
    return ids
