"""Questions to humans: their forms, and the turns that carry the answers."""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The types of store/db/column_types.py as they are on this day; SQLite keeps times as Unix seconds.
UUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")

OPEN = sa.text("state = 'open'")


def upgrade() -> None:
    op.create_table(
        "forms",
        sa.Column("id", UUID, nullable=False),
        sa.Column("conversation_id", UUID, nullable=False),
        sa.Column("turn_id", UUID, nullable=False),
        sa.Column("message_id", UUID, nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("tool_call_id", sa.Text(), server_default="", nullable=False),
        sa.Column("definition", sa.Text(), server_default="", nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("answered_by", UUID, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("state IN ('open', 'submitted', 'timeout', 'cancelled')", name="ck_forms_state"),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversations.id"], name="fk_forms_conversation_id"),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_forms_message_id"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name="fk_forms_turn_id"),
        sa.PrimaryKeyConstraint("id", name="pk_forms"),
        sa.UniqueConstraint("message_id", name="uq_forms_message_id"),
        sa.UniqueConstraint("token", name="uq_forms_token"),
        sa.UniqueConstraint("turn_id", name="uq_forms_turn_id"),
    )
    op.create_index("ix_forms_conversation_id", "forms", ["conversation_id"])
    op.create_index("ix_forms_expiry", "forms", ["expires_at"], postgresql_where=OPEN, sqlite_where=OPEN)
    # One open question per conversation, whatever the code does.
    op.create_index(
        "uq_forms_open",
        "forms",
        ["conversation_id"],
        unique=True,
        postgresql_where=OPEN,
        sqlite_where=OPEN,
    )
    with op.batch_alter_table("turns") as turns:
        turns.add_column(sa.Column("form_id", UUID, nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("turns") as turns:
        turns.drop_column("form_id")
    op.drop_table("forms")
