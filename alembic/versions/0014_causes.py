"""Why a turn failed, which request began it, and why its model stopped answering."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The type of store/db/column_types.py as it is on this day.
QUEUED = sa.text("state = 'queued'")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("turns", sa.Column("cause", JSON, nullable=True))
    op.add_column("turns", sa.Column("request_id", sa.Text(), nullable=True))
    op.add_column("turns", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("messages", sa.Column("finish_reason", sa.String(16), nullable=True))
    # So that what waits is counted at no cost, however many turns there are.
    op.create_index(
        "ix_turns_queued", "turns", ["conversation_id"], postgresql_where=QUEUED, sqlite_where=QUEUED
    )


def downgrade() -> None:
    op.drop_index("ix_turns_queued", "turns")
    op.drop_column("messages", "finish_reason")
    for name in ("traceparent", "request_id", "cause"):
        op.drop_column("turns", name)
