"""Insert a row, or change the one that has its key already: the same statement for both databases."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, CursorResult, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import ReadOnlyColumnCollection

NewRow: TypeAlias = ReadOnlyColumnCollection[str, Any]
"""The columns of the row that could not be inserted."""


class Upsert:
    """One statement per dialect, built once. `run` it with the values of a row."""

    def __init__(
        self,
        table: Table,
        key: Sequence[str],
        *,
        values: Mapping[str, Any],
        change: Callable[[NewRow], Mapping[str, Any]] | None = None,
        only_if: Callable[[NewRow], ColumnElement[bool]] | None = None,
        returning: Sequence[ColumnElement[Any]] = (),
    ) -> None:
        """`key` are the columns of a unique constraint; `values` are SQL expressions for further columns.

        `change` says what becomes of the row that is there, `only_if` holds it back; without `change` that
        row stays as it is.
        """

        def built(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
            insert = insert.values(**values)
            if change is None:
                return insert.on_conflict_do_nothing(index_elements=key)
            new = insert.excluded
            return insert.on_conflict_do_update(
                index_elements=key, set_=change(new), where=only_if(new) if only_if else None
            )

        self.statements = {
            dialect: statement.returning(*returning) if returning else statement
            for dialect, statement in (
                ("postgresql", built(postgresql.insert(table))),
                ("sqlite", built(sqlite.insert(table))),
            )
        }
        """By the name of the dialect."""

    async def run(self, connection: AsyncConnection, row: Mapping[str, Any]) -> CursorResult[Any]:
        """Insert this row, or change the one with its key; returns the `returning` columns."""
        return await connection.execute(self.statements[connection.dialect.name], dict(row))
