"""Secrets of keys: which secret key they were made with, and which key of the settings was replaced."""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("secret_mark", sa.String(16), nullable=True))
    op.add_column("api_keys", sa.Column("replaced", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("api_keys", "replaced")
    op.drop_column("api_keys", "secret_mark")
