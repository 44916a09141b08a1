"""How turns end in the rows, and how an ended turn is read back."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, TypeVarTuple

import msgspec
from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlmodel import col

from agent_gateway.apps.config import AppMode, read_config
from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import AppId, ConversationId, MessageId, TaskId
from agent_gateway.domain.turns import Outcome, Step, TurnState, Usage
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import (
    AppVersionRow,
    MessageRow,
    StepRow,
    TurnRow,
    conversations,
    messages,
    snapshots,
    steps,
    turns,
)
from agent_gateway.store.files import read_artifacts, write_artifacts
from agent_gateway.store.question_forms import forget_snapshot, forms_of_turn
from agent_gateway.store.turns import chunk_offsets
from agent_gateway.store.turns.queue import promote

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
MUCH: Final = 20_000
"""Chunks or characters of an answer from which on they are packed and unpacked in a thread."""


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn as a reader sees it: what its frames are made of, and whether it has ended."""

    task_id: TaskId
    conversation_id: ConversationId
    message_id: MessageId
    created_at: int
    mode: AppMode
    """Of the app's version that the turn is pinned to (R17)."""
    ended: bool


async def read_view(database: Database, app_id: AppId, user: str, task_id: TaskId) -> TurnView | None:
    """A turn of this app and user, or None."""
    async with database.reading() as session:
        found = await session.execute(
            select(
                col(TurnRow.conversation_id),
                col(TurnRow.message_id),
                col(MessageRow.created_at),
                col(AppVersionRow.config),
                col(TurnRow.state),
            )
            .join(MessageRow, col(MessageRow.id) == col(TurnRow.message_id))
            .join(conversations, conversations.c.id == col(TurnRow.conversation_id))
            .join(AppVersionRow, col(AppVersionRow.id) == col(TurnRow.app_version_id))
            .where(col(TurnRow.id) == task_id, owned(conversations)),
            scope_of(app_id, user),
        )
        row = found.first()
    if row is None:
        return None
    conversation_id, message_id, created_at, config, state = row
    return TurnView(
        task_id=task_id,
        conversation_id=ConversationId(conversation_id),
        message_id=MessageId(message_id),
        created_at=int(created_at.timestamp()),
        mode=read_config(config).mode,
        ended=state == TurnState.ENDED,
    )


async def read_result(database: Database, task_id: TaskId) -> Result | None:
    """How a turn ended, with all it produced; None while it has not."""
    async with database.reading(anyhow=True) as session:
        found = await session.execute(
            select(TurnRow, MessageRow)
            .join(MessageRow, col(MessageRow.id) == col(TurnRow.message_id))
            .where(col(TurnRow.id) == task_id, col(TurnRow.state) == TurnState.ENDED)
        )
        row = found.first()
        if row is None:
            return None
        turn, message = row
        steps = await read_steps(session, [message.id])
        form, answered = await forms_of_turn(session, turn.id, turn.form_id)
        made = await read_artifacts(session, [message])
        return Result(
            outcome=Outcome(turn.outcome),
            chunks=await _in_time(len(message.answer), chunk_offsets.unpack, message.marks, message.answer),
            text=message.answer,
            steps=tuple(steps.get(message.id, ())),
            end_position=turn.end_position or GATEWAY_END,
            error_code=turn.error_code,
            usage=msgspec.convert(message.usage, Usage) if message.usage else None,
            form=form,
            answered=answered,
            files=tuple(made.get(message.id, ())),
        )


async def read_steps(session: AsyncSession, message_ids: Sequence[str]) -> dict[str, list[Step]]:
    """The steps of these messages, in order."""
    steps: dict[str, list[Step]] = {}
    rows = await session.scalars(
        select(StepRow)
        .where(col(StepRow.message_id).in_(message_ids))
        .order_by(col(StepRow.message_id), col(StepRow.number))
    )
    for row in rows:
        step = Step(row.number, row.position, row.thought, row.tool, row.tool_input, row.observation)
        steps.setdefault(row.message_id, []).append(step)
    return steps


async def _in_time(size: int, work: Callable[[*Ts], T], *of: *Ts) -> T:
    """Do this in a thread when there is so much of it that it would hold up the event loop."""
    return work(*of) if size < MUCH else await asyncio.to_thread(work, *of)


async def lock_conversation(connection: AsyncConnection, conversation_id: str) -> Row[Any, Any, Any]:
    """Lock a conversation's row: the first lock of every write about its turns (R10)."""
    return (await connection.execute(_LOCK_CONVERSATION, {"conversation": conversation_id})).one()


async def write_result(
    connection: AsyncConnection, turn: Row[Any], result: Result, turn_seconds: float
) -> bool:
    """Everything that `… → ended` writes; the caller holds the locks of conversation and turn.

    `turn_seconds` is how long the next queued turn, which this lets go, may take. Returns whether
    there was one.
    """
    await connection.execute(
        _WRITE_ANSWER,
        {
            "message": turn.message_id,
            "answer": result.answer,
            "marks": await _in_time(len(result.chunks), chunk_offsets.pack, result.chunks),
            "usage": msgspec.to_builtins(result.usage) if result.usage else None,
        },
    )
    if result.steps:
        rows = [{"message_id": turn.message_id, **msgspec.structs.asdict(step)} for step in result.steps]
        await connection.execute(insert(steps), rows)
    await write_artifacts(connection, turn.message_id, result.files)
    if result.snapshot is not None:
        await move_snapshot(connection, turn.conversation_id, turn.seq, result.snapshot)
    if turn.form_id is not None:
        await forget_snapshot(connection, turn)
    await connection.execute(_TOUCH_CONVERSATION, {"conversation": turn.conversation_id})
    await connection.execute(
        _END_TURN,
        {
            "turn": turn.id,
            "outcome": result.outcome.value,
            "error_code": result.error_code,
            "end_position": result.end_position,
        },
    )
    return await promote(connection, turn.conversation_id, turn_seconds)


async def move_snapshot(connection: AsyncConnection, conversation_id: str, seq: int, snapshot: str) -> None:
    """Make this the conversation's session snapshot, unless it has that of a later turn (I7)."""
    row = {"conversation_id": conversation_id, "seq": seq, "data": snapshot}
    await connection.execute(_UPSERT_SNAPSHOT[connection.dialect.name], row)


def _upsert_snapshot(dialect_insert: Any) -> Any:
    """Move the conversation's snapshot forward, never back (I7)."""
    statement = dialect_insert(snapshots).values(updated_at=now_plus())
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["conversation_id"],
        set_={"seq": new.seq, "data": new.data, "updated_at": new.updated_at},
        where=snapshots.c.seq < new.seq,
    )


_UPSERT_SNAPSHOT = {
    "postgresql": _upsert_snapshot(postgres_insert),
    "sqlite": _upsert_snapshot(sqlite_insert),
}
_LOCK_CONVERSATION = (
    select(conversations.c.id, conversations.c.deleted_at, conversations.c.naming)
    .where(conversations.c.id == bindparam("conversation"))
    .with_for_update()
)
_WRITE_ANSWER = (
    update(messages)
    .where(messages.c.id == bindparam("message"))
    .values(answer=bindparam("answer"), marks=bindparam("marks"), usage=bindparam("usage"))
)
_TOUCH_CONVERSATION = (
    update(conversations).where(conversations.c.id == bindparam("conversation")).values(updated_at=now_plus())
)
_END_TURN = (
    update(turns)
    .where(turns.c.id == bindparam("turn"))
    .values(
        state=TurnState.ENDED.value,
        outcome=bindparam("outcome"),
        error_code=bindparam("error_code"),
        end_position=bindparam("end_position"),
        lease_until=None,
        checkpoint=None,
        ended_at=now_plus(),
    )
)
