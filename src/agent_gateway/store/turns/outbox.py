"""The outbox: work at the backend that is still to be done, by any process.

A row is written in the transaction that makes the work necessary. A process claims it by moving its due
time forward, does the work outside of any transaction, and deletes the row. If the process dies, the row
becomes due again. So all of this work is done at least once (R7, R8, R16).
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from sqlalchemy import and_, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import RunId, TaskId, new_id
from agent_gateway.domain.turns import AnsweredTurn, Outcome, Turn
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import conversations, messages, outbox, snapshots, turns
from agent_gateway.store.db.upsert import Upsert
from agent_gateway.store.turns.locks import LockedConversation, LockedTurn
from agent_gateway.store.turns.rows import OwnerContext, read_answered_turns

HOLD_SECONDS: Final = 60.0
"""How long an entry stays with the process that claimed it; longer than any of the work may take."""
CANCEL_SECONDS: Final = 10.0
"""How long the process that ended a turn has to cancel its run itself, before any other does."""


class OutboxKind(StrEnum):
    """What there is to do."""

    CANCEL_RUN = "cancel_run"
    CLOSE_SESSION = "close_session"
    NAME_CONVERSATION = "name_conversation"
    SUGGEST_QUESTIONS = "suggest_questions"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A row of the outbox that this process has claimed."""

    id: str
    kind: OutboxKind
    task_id: TaskId
    answered: AnsweredTurn | None
    """The turn it is about; None when this release cannot read the app's configuration."""
    run_id: RunId | None
    tries: int
    """Including this one."""
    age_seconds: float


class _ClaimedRow(NamedTuple):
    id: str
    kind: str
    turn_id: str
    run_id: str | None
    tries: int
    created_at: datetime
    now: datetime


class Outbox:
    """The outbox that all processes share, as one of them uses it."""

    def __init__(self, database: Database, context: OwnerContext) -> None:
        self._database = database
        self._context = context
        self.written = asyncio.Event()
        """Set when a write of this process made an entry due at once."""

    _IS_ANY_DUE: Final = select(outbox.c.id).where(outbox.c.next_try_at <= now_plus()).limit(1)

    async def claim(self, most: int) -> list[OutboxEntry]:
        """Up to so many due entries, for this process alone until HOLD_SECONDS from now."""
        async with self._database.reading() as session:
            if await session.scalar(self._IS_ANY_DUE) is None:
                return []
        async with self._database.transaction() as connection:
            due = await connection.scalars(
                select(outbox.c.id)
                .where(outbox.c.next_try_at <= now_plus())
                .order_by(outbox.c.next_try_at)
                .limit(most)
                .with_for_update(skip_locked=True)
            )
            ids = list(due)
            if not ids:
                return []
            claimed = outbox.c.id.in_(ids)
            values = {"tries": outbox.c.tries + 1, "next_try_at": now_plus(HOLD_SECONDS)}
            await connection.execute(update(outbox).where(claimed).values(values))
            columns = (outbox.c[name] for name in _ClaimedRow._fields[:-1])
            found = await connection.execute(select(*columns, now_plus()).where(claimed))
            rows = [_ClaimedRow(*row) for row in found]
            answered = await read_answered_turns(
                connection, self._context, turns.c.id.in_([row.turn_id for row in rows])
            )
        return [_entry(row, answered) for row in rows]

    async def complete(self, entry: OutboxEntry, made: str | list[str] | None = None) -> None:
        """Delete an entry whose work is done, and store the name or the questions that it made."""
        async with self._database.transaction() as connection:
            if entry.answered is not None:
                await _store_outcome(connection, entry.kind, entry.answered.turn, made)
            await connection.execute(delete(outbox).where(outbox.c.id == entry.id))

    _RESCHEDULE: Final = (
        update(outbox)
        .where(outbox.c.id == bindparam("entry"), outbox.c.tries == bindparam("our_try"))
        .values(next_try_at=now_plus(bindparam("seconds")))
    )

    async def reschedule(self, entries: Sequence[OutboxEntry], seconds: float) -> None:
        """Make entries due again in so many seconds, unless another process has claimed them since."""
        async with self._database.transaction() as connection:
            await connection.execute(
                self._RESCHEDULE,
                [{"entry": entry.id, "our_try": entry.tries, "seconds": seconds} for entry in entries],
            )
        if not seconds:
            self.written.set()

    _DELETE_CANCEL: Final = delete(outbox).where(
        outbox.c.turn_id == bindparam("task"), outbox.c.kind == OutboxKind.CANCEL_RUN.value
    )

    async def cancel_tried(self, turn: Turn, run_id: RunId, *, done: bool) -> None:
        """Record that the backend was asked to cancel a run; if it was not `done`, it is asked again.

        The run is that of an ended turn, or one that no turn has.
        """
        # It refers to its turn. When that is gone, nobody will ask for this run again (R18).
        with suppress(IntegrityError):
            async with self._database.transaction() as connection:
                await connection.execute(self._DELETE_CANCEL, {"task": turn.task_id})
                if not done:
                    await _enqueue(connection, OutboxKind.CANCEL_RUN, turn.task_id, run_id=run_id)
            if not done:
                self.written.set()

    # `complete` holds this row until the suggestions are stored and the entry is deleted, so that they are
    # not asked for again in between.
    _LOCK_SUGGESTIONS: Final = (
        select(messages.c.suggestions)
        .where(
            messages.c.id
            == select(turns.c.message_id).where(turns.c.id == bindparam("task")).scalar_subquery()
        )
        .with_for_update()
    )

    async def ask_suggestions(self, task_id: TaskId) -> None:
        """Have suggested questions made for this turn, unless they were or are being made."""
        with suppress(IntegrityError):
            async with self._database.transaction() as connection:
                if await connection.scalar(self._LOCK_SUGGESTIONS, {"task": task_id}) is not None:
                    return
                await _enqueue(connection, OutboxKind.SUGGEST_QUESTIONS, task_id)
            self.written.set()


def _entry(row: _ClaimedRow, answered: Mapping[TaskId, AnsweredTurn]) -> OutboxEntry:
    return OutboxEntry(
        id=row.id,
        kind=OutboxKind(row.kind),
        task_id=TaskId(row.turn_id),
        answered=answered.get(TaskId(row.turn_id)),
        run_id=RunId(row.run_id) if row.run_id else None,
        tries=row.tries,
        age_seconds=(row.now - row.created_at).total_seconds(),
    )


_NAME: Final = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.naming == "asked")
    .values(name=bindparam("made"), naming="closed")
)


async def _store_outcome(
    connection: AsyncConnection, kind: OutboxKind, turn: Turn, made: str | list[str] | None
) -> None:
    match kind, made:
        case OutboxKind.CLOSE_SESSION, _:
            await connection.execute(
                delete(snapshots).where(snapshots.c.conversation_id == turn.conversation_id)
            )
        case OutboxKind.NAME_CONVERSATION, str():
            # Not if a caller has named it since.
            await connection.execute(_NAME, {"conversation": turn.conversation_id, "made": made})
        case OutboxKind.SUGGEST_QUESTIONS, _:
            # An empty list when none were made, so that they are not asked for again and again.
            await connection.execute(
                update(messages).where(messages.c.id == turn.message_id).values(suggestions=made or [])
            )
        case _:
            pass


_ENQUEUE: Final = Upsert(
    outbox,
    ["turn_id", "kind"],
    values={
        **{name: bindparam(name) for name in ("id", "kind", "turn_id", "run_id", "tries")},
        "next_try_at": now_plus(bindparam("seconds")),
        "created_at": now_plus(),
    },
)


async def _enqueue(
    connection: AsyncConnection,
    kind: OutboxKind,
    task_id: str,
    *,
    run_id: str | None = None,
    seconds: float = 0.0,
) -> None:
    """Write an entry that is due in so many seconds, unless the turn has one of this kind."""
    row = {"id": new_id(), "kind": kind.value, "turn_id": task_id, "run_id": run_id, "tries": 0}
    await _ENQUEUE.run(connection, {**row, "seconds": seconds})


_ASK_NAME: Final = (
    update(conversations).where(conversations.c.id == bindparam("conversation")).values(naming="asked")
)


async def enqueue_followups(
    connection: AsyncConnection, turn: Turn, row: LockedTurn, result: Result, conversation: LockedConversation
) -> bool:
    """Write what is to be done after a turn, in the transaction that ends it. Usually nothing.

    Returns whether any of it is due at once.
    """
    if result.end_position >= GATEWAY_END and row.run_id:
        # We end the turn without having seen the run's end, so the run may still be going (R8).
        await _enqueue(
            connection, OutboxKind.CANCEL_RUN, turn.task_id, run_id=row.run_id, seconds=CANCEL_SECONDS
        )
    if conversation.deleted_at is not None:
        return await enqueue_closing(connection, turn.conversation_id)
    if result.outcome is not Outcome.COMPLETED or conversation.naming != "open":
        return False
    if turn.app.config.naming is None:
        return False
    await connection.execute(_ASK_NAME, {"conversation": turn.conversation_id})
    await _enqueue(connection, OutboxKind.NAME_CONVERSATION, turn.task_id)
    return True


_SNAPSHOT_TURN: Final = (
    select(turns.c.id)
    .join(
        snapshots,
        and_(snapshots.c.conversation_id == turns.c.conversation_id, snapshots.c.seq == turns.c.seq),
    )
    .where(turns.c.conversation_id == bindparam("conversation"))
)


async def enqueue_closing(connection: AsyncConnection, conversation_id: str) -> bool:
    """Write that the session of a deleted conversation is to be closed; False when it has none.

    The entry is about the turn that made the session, and so about that turn's version of the app
    (R16, R17).
    """
    task_id = await connection.scalar(_SNAPSHOT_TURN, {"conversation": conversation_id})
    if task_id is None:
        return False
    await _enqueue(connection, OutboxKind.CLOSE_SESSION, task_id)
    return True
