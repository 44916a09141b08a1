"""The run log: runs of the embedded agent, and their events in batches.

Neither table refers to another one: the agent may have a database of its own, an event is written under the
lock of its run's row, and rows that refer to each other are slow to delete. The row of a run is renewed again
and again while it goes on, so each page has room for that. Nothing that a heartbeat changes is indexed.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(sa.Float(), "sqlite")
HAS_KEY = sa.text("idempotency_key IS NOT NULL")
HAS_CONVERSATION = sa.text("conversation_id IS NOT NULL")
ENDED = sa.text("ended_at IS NOT NULL")
ASKED = sa.text("cancel IS NOT NULL AND ended_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("owner", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_until", TIME, nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("conversation_id", sa.Text(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.Column("cancel", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_runs_status")
        ),
        sa.CheckConstraint("(status = 'running') = (ended_at IS NULL)", name=op.f("ck_runs_ended")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "uq_runs_idempotency_key",
        "runs",
        ["idempotency_key"],
        unique=True,
        postgresql_where=HAS_KEY,
        sqlite_where=HAS_KEY,
    )
    op.create_index(
        "ix_runs_conversation_id",
        "runs",
        ["conversation_id"],
        postgresql_where=HAS_CONVERSATION,
        sqlite_where=HAS_CONVERSATION,
    )
    op.create_index("ix_runs_ended_at", "runs", ["ended_at"], postgresql_where=ENDED, sqlite_where=ENDED)
    op.create_index("ix_runs_asked", "runs", ["owner"], postgresql_where=ASKED, sqlite_where=ASKED)
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "first", name=op.f("pk_run_events")),
    )


def downgrade() -> None:
    op.drop_table("run_events")
    for name in (
        "ix_runs_asked",
        "ix_runs_ended_at",
        "ix_runs_conversation_id",
        "uq_runs_idempotency_key",
    ):
        op.drop_index(name, "runs")
    op.drop_table("runs")
