"""SQL functions that each dialect spells in its own way: database time, and sizes in bytes."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Double, Integer, Text, cast, func, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.functions import FunctionElement

from agent_gateway.store.db.column_types import UtcDateTime


def now_plus(seconds: float | BindParameter[Any] = 0.0) -> ColumnElement[datetime]:
    """Database time plus some seconds. Leases and deadlines never use a process's own clock."""
    if isinstance(seconds, BindParameter):
        return _NowPlus(cast(seconds, Double()))
    return _NowPlus(literal(float(seconds), Double()))


def this_minute() -> ColumnElement[int]:
    """Minutes since 1970 in database time, as a whole number."""
    return _ThisMinute()


def utc_day(time: ColumnElement[datetime]) -> ColumnElement[str]:
    """The day of a time in UTC, like `2026-11-30`."""
    return _UtcDay(time)


def octets(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes of a text, or of the text of a JSON value; 0 for NULL."""
    return _Octets(column)


def octets_of(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes of all these texts of a row."""
    size = octets(columns[0])
    for column in columns[1:]:
        size += octets(column)
    return size


def octets_of_rows(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """Bytes of all these texts, over many rows."""
    return func.coalesce(func.sum(octets_of(*columns)), 0)


class _NowPlus(FunctionElement[datetime]):
    name = "now_plus"
    inherit_cache = True
    type = UtcDateTime()


class _ThisMinute(FunctionElement[int]):
    name = "this_minute"
    inherit_cache = True
    type = Integer()


class _UtcDay(FunctionElement[str]):
    name = "utc_day"
    inherit_cache = True
    type = Text()


class _Octets(FunctionElement[int]):
    name = "octets"
    inherit_cache = True
    type = BigInteger()


@compiles(_NowPlus, "postgresql")
def _now_postgresql(element: _NowPlus, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(_NowPlus, "sqlite")
def _now_sqlite(element: _NowPlus, compiler: SQLCompiler, **kw: Any) -> str:
    # Not unixepoch('subsec'): it is NULL before SQLite 3.42.
    return f"((julianday('now') - 2440587.5) * 86400.0 + {compiler.process(element.clauses, **kw)})"


@compiles(_ThisMinute, "postgresql")
def _minute_postgresql(element: _ThisMinute, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(floor(extract(epoch FROM clock_timestamp()) / 60) AS integer)"


@compiles(_ThisMinute, "sqlite")
def _minute_sqlite(element: _ThisMinute, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 1440 AS INTEGER)"


@compiles(_UtcDay, "postgresql")
def _day_postgresql(element: _UtcDay, compiler: SQLCompiler, **kw: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **kw)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


@compiles(_UtcDay, "sqlite")
def _day_sqlite(element: _UtcDay, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strftime('%Y-%m-%d', {compiler.process(element.clauses, **kw)}, 'unixepoch')"


@compiles(_Octets, "postgresql")
def _octets_postgresql(element: _Octets, compiler: SQLCompiler, **kw: Any) -> str:
    return f"coalesce(octet_length(CAST({compiler.process(element.clauses, **kw)} AS TEXT)), 0)"


@compiles(_Octets, "sqlite")
def _octets_sqlite(element: _Octets, compiler: SQLCompiler, **kw: Any) -> str:
    # Not octet_length: SQLite has it only since 3.43.
    return f"coalesce(length(CAST({compiler.process(element.clauses, **kw)} AS BLOB)), 0)"
