"""Deletes the rows of a conversation for good, a few at a time (R18).

It was marked as deleted before, so no caller and no new turn finds it. Its lock is held meanwhile, which
every write about its turns takes first (R10).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import (
    conversations,
    feedbacks,
    files,
    forms,
    message_files,
    messages,
    outbox,
    snapshots,
    steps,
    turns,
)
from agent_gateway.store.message_files import detach_files
from agent_gateway.store.runs.removal import delete_runs

MESSAGES: Final = 100
"""Messages whose rows are deleted in one transaction."""
QUIET_SECONDS: Final = 600
"""A conversation was deleted, and its last turn ended, at least so long ago: every reader had its end."""

Counts = Counter[str]
"""How many rows of each kind."""

_OF_MESSAGE: Final = {
    "forms": forms.c.message_id,
    "steps": steps.c.message_id,
    "feedbacks": feedbacks.c.message_id,
    "turns": turns.c.message_id,
    "messages": messages.c.id,
}
"""The kinds of rows that refer to a message, in the order in which they are deleted."""
_OF_CONVERSATION: Final = {"snapshots": snapshots.c.conversation_id, "conversations": conversations.c.id}

_NEXT: Final = (
    select(messages.c.id)
    .where(messages.c.conversation_id == bindparam("conversation"))
    .order_by(messages.c.seq)
    .limit(MESSAGES)
)
_TURNS: Final = select(turns.c.id).where(turns.c.message_id.in_(bindparam("messages", expanding=True)))
_DROP_OUTBOX_ENTRIES: Final = delete(outbox).where(outbox.c.turn_id.in_(_TURNS))


def is_settled() -> ColumnElement[bool]:
    """The conversation was deleted, and neither a turn, nor a reader, nor the outbox needs its rows."""
    mine = turns.c.conversation_id == conversations.c.id
    ended_lately = or_(turns.c.state != TurnState.ENDED.value, turns.c.ended_at > now_plus(-QUIET_SECONDS))
    return (
        (conversations.c.deleted_at < now_plus(-QUIET_SECONDS))
        & ~exists().where(mine, ended_lately)
        & ~exists().where(mine, outbox.c.turn_id == turns.c.id)
    )


_LOCK: Final = (
    select(conversations.c.id)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.deleted_at.is_not(None))
    .with_for_update(skip_locked=True)
)
LOCK_SETTLED: Final = _LOCK.where(is_settled())
"""Skips a conversation that another process removes."""
LOCK_DELETED: Final = _LOCK.with_for_update()
"""Waits for whoever has the conversation's lock."""


async def remove_some(connection: AsyncConnection, conversation_id: str) -> tuple[Counts, bool]:
    """Delete the oldest rows of a conversation that the caller has locked.

    Returns how many of each kind, and whether it is gone now. What the outbox would still do about its turns
    is dropped.
    """
    given = {"conversation": conversation_id}
    await detach_files(connection, conversation_id)
    # What the agent said stays no longer than the rest, if it is logged here.
    await delete_runs(connection, conversation_id)
    found = list(await connection.scalars(_NEXT, given))
    counts = Counts()
    if found:
        await connection.execute(_DROP_OUTBOX_ENTRIES, {"messages": found})
        for kind, column in _OF_MESSAGE.items():
            done = await connection.execute(delete(column.table).where(column.in_(found)))
            counts[kind] += done.rowcount
    if len(found) == MESSAGES:
        return counts, False
    for kind, column in _OF_CONVERSATION.items():
        done = await connection.execute(delete(column.table).where(column == conversation_id))
        counts[kind] += done.rowcount
    return counts, True


async def count_rows(connection: AsyncConnection, conversation_ids: Sequence[str]) -> Counts:
    """How many rows of each kind the removal of these conversations would delete, and how many files."""
    counts = Counts()
    mine = select(messages.c.id).where(messages.c.conversation_id.in_(conversation_ids))
    for kind, column in _OF_MESSAGE.items():
        counts[kind] = await _number(connection, column.in_(mine), column)
    for kind, column in _OF_CONVERSATION.items():
        counts[kind] = await _number(connection, column.in_(conversation_ids), column)
    shared = message_files.alias("shared")
    used = select(message_files.c.file_id).where(message_files.c.message_id.in_(mine))
    elsewhere = exists().where(shared.c.file_id == files.c.id, shared.c.message_id.not_in(mine))
    counts["files"] = await _number(connection, files.c.id.in_(used) & ~elsewhere, files.c.id)
    return counts


async def _number(
    connection: AsyncConnection, which: ColumnElement[bool], column: ColumnElement[object]
) -> int:
    return int(await connection.scalar(select(func.count(column)).where(which)) or 0)
