"""Apps that can be deleted, keys that expire and are counted, conversations that stay on their version."""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

UUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")

# A conversation stays on what its newest turn ran on.
PIN = """
UPDATE conversations SET app_version_id = (
    SELECT turns.app_version_id FROM turns
    WHERE turns.conversation_id = conversations.id ORDER BY turns.seq DESC LIMIT 1
)
"""


def upgrade() -> None:
    op.add_column("apps", sa.Column("deleted_at", TIME, nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", TIME, nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", TIME, nullable=True))
    op.add_column(
        "conversations",
        sa.Column(
            "app_version_id",
            UUID,
            sa.ForeignKey("app_versions.id", name="fk_conversations_app_version_id"),
            nullable=True,
        ),
        # The only way to add a reference on SQLite without making the table anew.
        inline_references=True,
    )
    op.execute(PIN)
    op.create_table(
        "request_counts",
        sa.Column("api_key_id", UUID, nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["api_key_id"], ["api_keys.id"], name="fk_request_counts_api_key_id"),
        sa.PrimaryKeyConstraint("api_key_id", name="pk_request_counts"),
    )


def downgrade() -> None:
    op.drop_table("request_counts")
    with op.batch_alter_table("conversations") as conversations:
        conversations.drop_column("app_version_id")
    op.drop_column("api_keys", "last_used_at")
    op.drop_column("api_keys", "expires_at")
    op.drop_column("apps", "deleted_at")
