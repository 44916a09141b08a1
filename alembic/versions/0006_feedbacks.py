"""Feedbacks: what end users thought of answers."""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The types of store/db/column_types.py as they are on this day; SQLite keeps times as Unix seconds.
UUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "feedbacks",
        sa.Column("id", UUID, nullable=False),
        sa.Column("app_id", UUID, nullable=False),
        sa.Column("conversation_id", UUID, nullable=False),
        sa.Column("message_id", UUID, nullable=False),
        sa.Column("end_user_id", UUID, nullable=False),
        sa.Column("rating", sa.String(16), nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_feedbacks_app_id"),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_feedbacks_conversation_id"
        ),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_feedbacks_message_id"),
        sa.ForeignKeyConstraint(["end_user_id"], ["end_users.id"], name="fk_feedbacks_end_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_feedbacks"),
        sa.UniqueConstraint("message_id", name="uq_feedbacks_message_id"),
    )
    op.create_index("ix_feedbacks_app", "feedbacks", ["app_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_table("feedbacks")
