"""The outbox: what is still to be done at the backend, and by whichever process gets to it.

A row is written in the transaction that makes it necessary. A process takes it by moving it forward,
does the work outside of any transaction, and deletes it; if it dies meanwhile, the row becomes due
again. So everything here is done at least once (R7, R8, R16).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import RunId, TaskId, new_id
from agent_gateway.domain.turns import AnsweredTurn, Outcome, Turn
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.tables import conversations, messages, outbox, snapshots, turns
from agent_gateway.store.turns.answered_turns import read_exchanges
from agent_gateway.store.turns.new_turn import OwnerContext

HOLD_SECONDS: Final = 60.0
"""How long an errand stays with the process that took it; longer than any of them may take."""
CANCEL_SECONDS: Final = 10.0
"""How long the process that ended a turn has to cancel its run itself, before anybody else does."""


class OutboxKind(StrEnum):
    """What there is to do."""

    CANCEL_RUN = "cancel_run"
    CLOSE_SESSION = "close_session"
    NAME_CONVERSATION = "name_conversation"
    SUGGEST_QUESTIONS = "suggest_questions"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A row of the outbox that this process has taken."""

    id: str
    kind: OutboxKind
    task_id: TaskId
    exchange: AnsweredTurn | None
    """The turn it is about; None when this release can not read the app's configuration."""
    run_id: RunId | None
    tries: int
    """This one is counted."""
    age_seconds: float


class Outbox:
    """The errands of all processes, as one of them sees them."""

    def __init__(self, database: Database, terms: OwnerContext) -> None:
        self._database = database
        self._terms = terms
        self.written = asyncio.Event()
        """Set when a write of this process made an errand due at once."""

    async def take(self, most: int) -> list[OutboxEntry]:
        """Up to so many due errands, for this process alone until HOLD_SECONDS from now."""
        async with self._database.reading() as session:
            if await session.scalar(_IS_ANY_DUE) is None:
                return []
        async with self._database.transaction() as connection:
            found = await connection.scalars(
                select(outbox.c.id)
                .where(outbox.c.next_try_at <= now_plus())
                .order_by(outbox.c.next_try_at)
                .limit(most)
                .with_for_update(skip_locked=True)
            )
            ids = list(found)
            if not ids:
                return []
            taken = outbox.c.id.in_(ids)
            values = {"tries": outbox.c.tries + 1, "next_try_at": now_plus(HOLD_SECONDS)}
            await connection.execute(update(outbox).where(taken).values(values))
            rows = (await connection.execute(select(outbox, now_plus().label("now")).where(taken))).all()
            exchanges = await read_exchanges(
                connection, self._terms, turns.c.id.in_([row.turn_id for row in rows])
            )
        return [_errand(row, exchanges) for row in rows]

    async def done(self, errand: OutboxEntry, made: str | list[str] | None = None) -> None:
        """Delete an errand, with what follows from its end: the name or the questions that it made."""
        async with self._database.transaction() as connection:
            if errand.exchange is not None:
                await _keep(connection, errand.kind, errand.exchange.turn, made)
            await connection.execute(delete(outbox).where(outbox.c.id == errand.id))

    async def put_off(self, errands: Sequence[OutboxEntry], seconds: float) -> None:
        """These are not done: they become due again, unless somebody else has taken them since."""
        async with self._database.transaction() as connection:
            await connection.execute(
                _PUT_OFF,
                [{"errand": errand.id, "our_try": errand.tries, "seconds": seconds} for errand in errands],
            )
        if not seconds:
            self.written.set()

    async def cancel_tried(self, turn: Turn, run_id: RunId, *, done: bool) -> None:
        """The run of an ended turn, or one that is nobody's, was asked to cancel; not `done`: ask again."""
        async with self._database.transaction() as connection:
            await connection.execute(_FORGET_CANCEL, {"turn": turn.task_id})
            if not done:
                await put(connection, OutboxKind.CANCEL_RUN, turn.task_id, run_id=run_id)
        if not done:
            self.written.set()

    async def ask_suggestions(self, task_id: TaskId) -> None:
        """Have the questions made that may follow on this turn, unless they were or are being made."""
        async with self._database.transaction() as connection:
            if (await connection.execute(_LOCK_SUGGESTIONS, {"turn": task_id})).scalar() is not None:
                return
            await put(connection, OutboxKind.SUGGEST_QUESTIONS, task_id)
        self.written.set()


async def put(
    connection: AsyncConnection,
    kind: OutboxKind,
    task_id: str,
    *,
    run_id: str | None = None,
    seconds: float = 0.0,
) -> None:
    """Write an errand that is due in so many seconds; nothing happens when the turn has one of the kind."""
    row = {"id": new_id(), "kind": kind.value, "turn_id": task_id, "run_id": run_id, "tries": 0}
    dialect_insert: Any = postgres_insert if connection.dialect.name == "postgresql" else sqlite_insert
    await connection.execute(
        dialect_insert(outbox)
        .values(**row, next_try_at=now_plus(seconds), created_at=now_plus())
        .on_conflict_do_nothing(index_elements=["turn_id", "kind"])
    )


async def put_after(
    connection: AsyncConnection, turn: Turn, row: Row[Any], result: Result, conversation: Row[Any, Any, Any]
) -> bool:
    """What is owed after a turn, in the transaction that ends it; whether any of it is due at once.

    `row` is the turn's as it was before, `conversation` as it was locked. Usually nothing is owed.
    """
    if result.end_position >= GATEWAY_END and row.run_id:
        # We end the turn without having seen the run's end: it may go on (R8).
        await put(connection, OutboxKind.CANCEL_RUN, turn.task_id, run_id=row.run_id, seconds=CANCEL_SECONDS)
    if conversation.deleted_at is not None:
        return await put_closing(connection, turn.conversation_id)
    if result.outcome is not Outcome.COMPLETED or conversation.naming != "open":
        return False
    if turn.app.config.naming is None:
        return False
    await connection.execute(_ASK_NAME, {"conversation": turn.conversation_id})
    await put(connection, OutboxKind.NAME_CONVERSATION, turn.task_id)
    return True


async def put_closing(connection: AsyncConnection, conversation_id: str) -> bool:
    """The session of a deleted conversation is to be closed; False when there is none.

    It is closed as a session of the turn it came from: by that version of the app (R16, R17).
    """
    task_id = await connection.scalar(_SNAPSHOT_TURN, {"conversation": conversation_id})
    if task_id is None:
        return False
    await put(connection, OutboxKind.CLOSE_SESSION, task_id)
    return True


async def _keep(
    connection: AsyncConnection, kind: OutboxKind, turn: Turn, made: str | list[str] | None
) -> None:
    match kind, made:
        case OutboxKind.CLOSE_SESSION, _:
            await connection.execute(
                delete(snapshots).where(snapshots.c.conversation_id == turn.conversation_id)
            )
        case OutboxKind.NAME_CONVERSATION, str():
            # Only while nobody gave it a name since.
            await connection.execute(_NAME, {"conversation": turn.conversation_id, "made": made})
        case OutboxKind.SUGGEST_QUESTIONS, _:
            # Without any they are none, so that they are not asked for again and again.
            await connection.execute(
                update(messages).where(messages.c.id == turn.message_id).values(suggestions=made or [])
            )
        case _:
            pass


def _errand(row: Row[Any], exchanges: dict[TaskId, AnsweredTurn]) -> OutboxEntry:
    return OutboxEntry(
        id=row.id,
        kind=OutboxKind(row.kind),
        task_id=TaskId(row.turn_id),
        exchange=exchanges.get(TaskId(row.turn_id)),
        run_id=RunId(row.run_id) if row.run_id else None,
        tries=row.tries,
        age_seconds=(row.now - row.created_at).total_seconds(),
    )


_IS_ANY_DUE = select(outbox.c.id).where(outbox.c.next_try_at <= now_plus()).limit(1)
_PUT_OFF = (
    update(outbox)
    .where(outbox.c.id == bindparam("errand"), outbox.c.tries == bindparam("our_try"))
    .values(next_try_at=now_plus(bindparam("seconds")))
)
_FORGET_CANCEL = delete(outbox).where(
    outbox.c.turn_id == bindparam("turn"), outbox.c.kind == OutboxKind.CANCEL_RUN.value
)
_LOCK_SUGGESTIONS = (
    # Whoever has just made them holds this row until they are there and the errand is gone.
    select(messages.c.suggestions)
    .where(
        messages.c.id == select(turns.c.message_id).where(turns.c.id == bindparam("turn")).scalar_subquery()
    )
    .with_for_update()
)
_SNAPSHOT_TURN = (
    select(turns.c.id)
    .join(
        snapshots,
        and_(snapshots.c.conversation_id == turns.c.conversation_id, snapshots.c.seq == turns.c.seq),
    )
    .where(turns.c.conversation_id == bindparam("conversation"))
)
_ASK_NAME = (
    update(conversations).where(conversations.c.id == bindparam("conversation")).values(naming="asked")
)
_NAME = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.naming == "asked")
    .values(name=bindparam("made"), naming="closed")
)
