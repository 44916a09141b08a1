"""Initial schema: apps and their keys, conversations, messages, turns."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The types of store/db/column_types.py as they are on this day; SQLite keeps times as Unix seconds.
UUID = sa.Uuid(as_uuid=False)
TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

ACTIVE = sa.text("state IN ('planned', 'sending', 'running')")


def upgrade() -> None:
    _create_apps()
    _create_conversations()
    _create_turns()


def _create_apps() -> None:
    op.create_table(
        "apps",
        sa.Column("id", UUID, nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("version_id", UUID, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_apps"),
        sa.UniqueConstraint("slug", name="uq_apps_slug"),
    )
    op.create_index("ix_apps_tenant_id", "apps", ["tenant_id"])
    op.create_table(
        "app_versions",
        sa.Column("id", UUID, nullable=False),
        sa.Column("app_id", UUID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("config", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_app_versions_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_app_versions"),
        sa.UniqueConstraint("app_id", "number", name="uq_app_versions_app_id_number"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", UUID, nullable=False),
        sa.Column("app_id", UUID, nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_api_keys_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )
    op.create_index("ix_api_keys_app_id", "api_keys", ["app_id"])
    op.create_table(
        "end_users",
        sa.Column("id", UUID, nullable=False),
        sa.Column("app_id", UUID, nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_end_users_app_id"),
        sa.PrimaryKeyConstraint("id", name="pk_end_users"),
        sa.UniqueConstraint("app_id", "external_id", name="uq_end_users_app_id_external_id"),
    )


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", UUID, nullable=False),
        sa.Column("app_id", UUID, nullable=False),
        sa.Column("end_user_id", UUID, nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("inputs", JSON, server_default="{}", nullable=False),
        sa.Column("introduction", sa.Text(), server_default="", nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_conversations_app_id"),
        sa.ForeignKeyConstraint(["end_user_id"], ["end_users.id"], name="fk_conversations_end_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_scope", "conversations", ["app_id", "end_user_id", "updated_at", "id"])
    op.create_table(
        "snapshots",
        sa.Column("conversation_id", UUID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("data", sa.Text(), server_default="", nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_snapshots_conversation_id"
        ),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_snapshots"),
    )
    op.create_table(
        "messages",
        sa.Column("id", UUID, nullable=False),
        sa.Column("conversation_id", UUID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("query", sa.Text(), server_default="", nullable=False),
        sa.Column("inputs", JSON, server_default="{}", nullable=False),
        sa.Column("files", JSON, server_default="[]", nullable=False),
        sa.Column("answer", sa.Text(), server_default="", nullable=False),
        sa.Column("marks", sa.LargeBinary(), nullable=False),
        sa.Column("usage", JSON, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_messages_conversation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.UniqueConstraint("conversation_id", "seq", name="uq_messages_conversation_id_seq"),
    )
    op.create_table(
        "steps",
        sa.Column("message_id", UUID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("thought", sa.Text(), server_default="", nullable=False),
        sa.Column("tool", sa.Text(), server_default="", nullable=False),
        sa.Column("tool_input", sa.Text(), server_default="", nullable=False),
        sa.Column("observation", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_steps_message_id"),
        sa.PrimaryKeyConstraint("message_id", "number", name="pk_steps"),
    )


def _create_turns() -> None:
    op.create_table(
        "turns",
        sa.Column("id", UUID, nullable=False),
        sa.Column("app_version_id", UUID, nullable=False),
        sa.Column("conversation_id", UUID, nullable=False),
        sa.Column("message_id", UUID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", UUID, nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("adoptions", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("deadline_at", TIME, nullable=False),
        sa.Column("stop_at", TIME, nullable=True),
        sa.Column("stop_reason", sa.String(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("fold_version", sa.Integer(), nullable=False),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("end_position", sa.Integer(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'planned', 'sending', 'running', 'ended')", name=op.f("ck_turns_state")
        ),
        sa.CheckConstraint("(state = 'ended') = (outcome IS NOT NULL)", name=op.f("ck_turns_outcome")),
        sa.ForeignKeyConstraint(["app_version_id"], ["app_versions.id"], name="fk_turns_app_version_id"),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversations.id"], name="fk_turns_conversation_id"),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], name="fk_turns_message_id"),
        sa.PrimaryKeyConstraint("id", name="pk_turns"),
        sa.UniqueConstraint("message_id", name="uq_turns_message_id"),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("ix_turns_conversation_id", "turns", ["conversation_id"])
    op.create_index("ix_turns_state", "turns", ["state"], postgresql_where=ACTIVE, sqlite_where=ACTIVE)
    # One active turn per conversation, whatever the code does (I7).
    op.create_index(
        "uq_turns_active",
        "turns",
        ["conversation_id"],
        unique=True,
        postgresql_where=ACTIVE,
        sqlite_where=ACTIVE,
    )
    op.create_table(
        "idempotency",
        sa.Column("app_id", UUID, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("turn_id", UUID, nullable=False),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="fk_idempotency_app_id"),
        sa.PrimaryKeyConstraint("app_id", "user_id", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])


def downgrade() -> None:
    for table in (
        "idempotency",
        "turns",
        "steps",
        "messages",
        "snapshots",
        "conversations",
        "end_users",
        "api_keys",
        "app_versions",
        "apps",
    ):
        op.drop_table(table)
