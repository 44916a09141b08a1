"""Active turns: one index finds them, also those of a conversation.

While there were few of them, the server took the other index for a conversation's active turn, and kept that
plan when there were thousands.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

ACTIVE = sa.text("state IN ('planned', 'sending', 'running')")


def upgrade() -> None:
    op.drop_index("ix_turns_state", "turns")


def downgrade() -> None:
    op.create_index("ix_turns_state", "turns", ["state"], postgresql_where=ACTIVE, sqlite_where=ACTIVE)
