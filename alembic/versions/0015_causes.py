"""Why a turn failed, which request began it, and why its model stopped answering.

The indexes of the revision before take the longest, so these columns, which nobody may read past, come last.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The type of store/db/column_types.py as it is on this day.
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("turns", sa.Column("cause", JSON, nullable=True))
    op.add_column("turns", sa.Column("request_id", sa.Text(), nullable=True))
    op.add_column("turns", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("messages", sa.Column("finish_reason", sa.String(16), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "finish_reason")
    for name in ("traceparent", "request_id", "cause"):
        op.drop_column("turns", name)
