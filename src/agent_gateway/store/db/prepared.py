"""Statements that go to the database's own driver: built from the tables, and compiled once.

What SQLAlchemy does for each execution costs more than all the rest of a turn's writes. Here it only writes
the SQL, so a renamed column still breaks a test.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import asyncpg
from sqlalchemy import ClauseElement, Dialect, Insert, bindparam
from sqlalchemy.dialects.postgresql import asyncpg as postgresql
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.sql.compiler import SQLCompiler

_POSTGRES: Final = postgresql.dialect()
_SQLITE: Final = pysqlite.dialect()

_Convert = Callable[[Any], Any] | None


def with_parameters(statement: Insert, *names: str) -> Insert:
    """An insert whose columns of these names are parameters."""
    return statement.values({name: bindparam(name) for name in names})


class PreparedForPostgres:
    """A statement for asyncpg, which prepares it once per connection."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled = _compiled(statement, _POSTGRES)
        self.text = str(compiled)
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._constants: Mapping[str, Any] = dict(compiled.params)

    @property
    def parameters(self) -> int:
        """How many it has."""
        return len(self._names)

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The values of its parameters, in order. A constant of the statement needs none."""
        constants = self._constants
        return [values[name] if name in values else constants[name] for name in self._names]

    async def fetch(self, driver: asyncpg.Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it; the rows that it returns."""
        rows: list[Any] = await driver.fetch(self.text, *self.arguments(values))
        return rows


class PreparedForSqlite:
    """A statement for sqlite3, with the conversions of its columns' types."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled = _compiled(statement, _SQLITE)
        self.text = str(compiled)
        self._parameters = [(name, _to_sqlite(compiled.binds[name])) for name in compiled.positiontup or ()]
        self._constants: Mapping[str, Any] = dict(compiled.params)
        columns = getattr(statement, "exported_columns", ())
        self._results = [_from_sqlite(column) for column in columns]

    def execute(self, connection: sqlite3.Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        """Execute it with these values; a constant of the statement needs none."""
        constants = self._constants
        return connection.execute(
            self.text,
            [
                convert(value) if convert and value is not None else value
                for name, convert in self._parameters
                for value in (values[name] if name in values else constants[name],)
            ],
        )

    def first(self, connection: sqlite3.Connection, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Execute it; the first row that it returns, if it returns any."""
        row = self.execute(connection, values).fetchone()
        if row is None:
            return None
        return [
            convert(value) if convert and value is not None else value
            for value, convert in zip(row, self._results, strict=True)
        ]


def _compiled(statement: ClauseElement, dialect: Dialect) -> SQLCompiler:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    return compiled


def _to_sqlite(bind: Any) -> _Convert:
    found: _Convert = bind.type.dialect_impl(_SQLITE).bind_processor(_SQLITE)
    return found


def _from_sqlite(column: Any) -> _Convert:
    found: _Convert = column.type.dialect_impl(_SQLITE).result_processor(_SQLITE, None)
    return found
