"""Linked files: what an agent's tools made and what stays where it is; told by its URL."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The type of store/db/column_types.py as it is on this day.
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("messages", sa.Column("linked_files", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "linked_files")
