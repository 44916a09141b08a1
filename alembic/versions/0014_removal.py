"""Removal: indexes by which the database finds what refers to a conversation or an end user that goes.

The index of conversations has the same columns in another order: its readers name app and end user. That of
queued turns tells how many wait, however many turns there are. Writers wait while an index is made, readers
do not.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

QUEUED = sa.text("state = 'queued'")


def upgrade() -> None:
    op.create_index(
        "ix_turns_queued", "turns", ["conversation_id"], postgresql_where=QUEUED, sqlite_where=QUEUED
    )
    op.create_index("ix_files_end_user_id", "files", ["end_user_id"])
    op.create_index("ix_feedbacks_conversation_id", "feedbacks", ["conversation_id"])
    op.create_index("ix_feedbacks_end_user_id", "feedbacks", ["end_user_id"])
    op.create_index(
        "ix_conversations_end_user", "conversations", ["end_user_id", "app_id", "updated_at", "id"]
    )
    op.drop_index("ix_conversations_scope", "conversations")


def downgrade() -> None:
    op.create_index("ix_conversations_scope", "conversations", ["app_id", "end_user_id", "updated_at", "id"])
    op.drop_index("ix_conversations_end_user", "conversations")
    op.drop_index("ix_feedbacks_end_user_id", "feedbacks")
    op.drop_index("ix_feedbacks_conversation_id", "feedbacks")
    op.drop_index("ix_files_end_user_id", "files")
    op.drop_index("ix_turns_queued", "turns")
