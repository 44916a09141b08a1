"""Types of columns that the two databases keep in different ways: times, JSON, UUIDs."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Float, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time: timestamptz on Postgres, Unix seconds on SQLite (which has no such type)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Pick the column type of this dialect."""
        kind: TypeEngine[Any] = Float() if dialect.name == "sqlite" else DateTime(timezone=True)
        return dialect.type_descriptor(kind)

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To the database."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.timestamp()

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None or isinstance(value, datetime):
            return value
        return datetime.fromtimestamp(value, UTC)


def json_type() -> TypeEngine[Any]:
    """JSONB on Postgres, JSON text elsewhere."""
    return JSON().with_variant(JSONB(), "postgresql")


def json_or_null_type() -> TypeEngine[Any]:
    """The same, for a column in which None is NULL rather than the null of JSON."""
    return JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def uuid_type() -> TypeEngine[str]:
    """A native UUID where there is one; a canonical string in Python."""
    return Uuid(as_uuid=False)
