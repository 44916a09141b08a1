"""The inputs of a conversation are kept once: its messages keep only what they sent otherwise.

Only messages of ended turns are changed. One that keeps everything itself is read right, too; so a process of
the release before, which knows no other kind, can go on with the turns that it has begun.
"""

import json
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
turns = sa.table("turns", sa.column("message_id", ID), sa.column("state", sa.String))

SAME_CONVERSATION = conversations.c.id == messages.c.conversation_id
NONE = "{}"


def upgrade() -> None:
    op.add_column("messages", sa.Column("inputs_of", ID, nullable=True))
    ended = sa.exists().where(turns.c.message_id == messages.c.id, turns.c.state == "ended")
    kept = sa.cast(conversations.c.inputs, sa.Text)
    given = sa.cast(messages.c.inputs, sa.Text)
    the_same = sa.select(kept).where(SAME_CONVERSATION).correlate(messages).scalar_subquery() == given
    op.execute(
        sa.update(messages).where(given != NONE, ended, the_same).values(inputs=sa.literal_column("'{}'"))
    )
    if op.get_context().as_sql:
        # Written down for somebody to run: what has to be read first stays as it is, which is right, too.
        return
    others = (
        sa.select(messages.c.id, messages.c.inputs, conversations.c.inputs.label("kept"))
        .join(conversations, SAME_CONVERSATION)
        .where(given != NONE, kept != NONE, ended)
    )
    for row in _one_by_one(others):
        own = {
            name: value
            for name, value in row.inputs.items()
            if name not in row.kept or json.dumps(value) != json.dumps(row.kept[name])
        }
        if len(own) < len(row.inputs):
            _write(row.id, own)


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
