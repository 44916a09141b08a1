"""The outbox; deleted conversations, who names one, and suggested questions."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

UUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("conversations", sa.Column("naming", sa.String(8), server_default="open", nullable=False))
    op.add_column("conversations", sa.Column("deleted_at", TIME, nullable=True))
    op.add_column("messages", sa.Column("suggestions", JSON, nullable=True))
    op.create_table(
        "outbox",
        sa.Column("id", UUID, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("turn_id", UUID, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "kind IN ('cancel_run', 'close_session', 'name_conversation', 'suggest_questions')",
            name=op.f("ck_outbox_kind"),
        ),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_outbox_turn_id"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("turn_id", "kind", name="uq_outbox_turn_id_kind"),
    )
    op.create_index("ix_outbox_next_try_at", "outbox", ["next_try_at"])


def downgrade() -> None:
    op.drop_table("outbox")
    op.drop_column("messages", "suggestions")
    op.drop_column("conversations", "deleted_at")
    op.drop_column("conversations", "naming")
