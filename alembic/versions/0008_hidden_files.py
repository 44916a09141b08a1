"""Hidden files: those of deleted conversations, gone for everybody before their bytes are."""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The type of store/db/column_types.py as it is on this day; SQLite keeps times as Unix seconds.
TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")
DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("files", sa.Column("deleted_at", TIME, nullable=True))
    op.create_index(
        "ix_files_deleted_at", "files", ["deleted_at"], postgresql_where=DELETED, sqlite_where=DELETED
    )


def downgrade() -> None:
    op.drop_index("ix_files_deleted_at", table_name="files")
    op.drop_column("files", "deleted_at")
