"""Processes: who works on this database, and with which secret key."""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("owner", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("secret_mark", sa.String(16), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite"), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_processes")),
    )


def downgrade() -> None:
    op.drop_table("processes")
