"""The inputs of a conversation are kept once: its messages keep only what they sent otherwise.

No message is rewritten: one that keeps everything itself is read right, too. A large table would be locked
for as long as that takes, and a process of the release before, which knows no other kind, could not go on
with what it has begun.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
ID = sa.Uuid(as_uuid=False)

messages = sa.table(
    "messages",
    sa.column("id", ID),
    sa.column("conversation_id", ID),
    sa.column("inputs", JSON),
    sa.column("inputs_of", ID),
)
conversations = sa.table("conversations", sa.column("id", ID), sa.column("inputs", JSON))

SAME_CONVERSATION = conversations.c.id == messages.c.conversation_id
NONE = "{}"


def upgrade() -> None:
    op.add_column("messages", sa.Column("inputs_of", ID, nullable=True))


def downgrade() -> None:
    if op.get_context().as_sql:
        raise NotImplementedError("going back reads rows: it needs the database")
    asking = messages.alias("asking")
    stored = sa.func.coalesce(asking.c.inputs, messages.c.inputs, type_=JSON)
    every = (
        sa.select(messages.c.id, stored.label("inputs"), conversations.c.inputs.label("kept"))
        .join(conversations, SAME_CONVERSATION)
        .outerjoin(asking, asking.c.id == messages.c.inputs_of)
        .where(sa.or_(sa.cast(conversations.c.inputs, sa.Text) != NONE, sa.cast(stored, sa.Text) != NONE))
    )
    for row in _one_by_one(every):
        _write(row.id, {**row.kept, **row.inputs})
    op.drop_column("messages", "inputs_of")


def _one_by_one(rows: sa.Select[Any, Any, Any]) -> Iterator[sa.Row[Any, Any, Any]]:
    """These rows, in the order of their ids, with never more than one in memory: they may be large."""
    connection = op.get_bind()
    last: str | None = None
    while True:
        beyond = rows if last is None else rows.where(messages.c.id > last)
        row = connection.execute(beyond.order_by(messages.c.id).limit(1)).first()
        if row is None:
            return
        yield row
        last = row.id


def _write(message_id: str, inputs: Mapping[str, Any]) -> None:
    op.get_bind().execute(sa.update(messages).where(messages.c.id == message_id).values(inputs=inputs))
