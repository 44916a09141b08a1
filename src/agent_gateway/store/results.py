"""How turns end in the rows, and how an ended turn is read back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, case, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.domain import AppId, ConversationId, MessageId, Outcome, Step, TaskId, TurnState, Usage
from agent_gateway.events import GATEWAY_END, Result
from agent_gateway.store import marks
from agent_gateway.store.database import Database, now_plus, rows_changed
from agent_gateway.store.tables import (
    ConversationRow,
    EndUserRow,
    MessageRow,
    SnapshotRow,
    StepRow,
    TurnRow,
)

ACTIVE: Final = (TurnState.PLANNED, TurnState.SENDING, TurnState.RUNNING)
"""States in which a turn occupies its conversation (I7)."""


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn as a reader sees it: the ids its frames carry, and whether it has ended."""

    task_id: TaskId
    conversation_id: ConversationId
    message_id: MessageId
    created_at: int
    ended: bool


async def read_view(database: Database, app_id: AppId, user: str, task_id: TaskId) -> TurnView | None:
    """A turn of this app and user, or None."""
    async with database.reading() as session:
        found = await session.execute(
            select(
                col(TurnRow.conversation_id),
                col(TurnRow.message_id),
                col(MessageRow.created_at),
                col(TurnRow.state),
            )
            .join(MessageRow, col(MessageRow.id) == col(TurnRow.message_id))
            .join(ConversationRow, col(ConversationRow.id) == col(TurnRow.conversation_id))
            .join(EndUserRow, col(EndUserRow.id) == col(ConversationRow.end_user_id))
            .where(
                col(TurnRow.id) == task_id,
                col(ConversationRow.app_id) == app_id,
                col(EndUserRow.external_id) == user,
            )
        )
        row = found.first()
    if row is None:
        return None
    conversation_id, message_id, created_at, state = row
    return TurnView(
        task_id=task_id,
        conversation_id=ConversationId(conversation_id),
        message_id=MessageId(message_id),
        created_at=int(created_at.timestamp()),
        ended=state == TurnState.ENDED,
    )


async def read_result(database: Database, task_id: TaskId) -> Result | None:
    """How a turn ended, with all it produced; None while it has not."""
    async with database.reading() as session:
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
        return Result(
            outcome=Outcome(turn.outcome),
            chunks=marks.unpack(message.marks, message.answer),
            steps=tuple(steps.get(message.id, ())),
            end_position=turn.end_position or GATEWAY_END,
            error_code=turn.error_code,
            usage=msgspec.convert(message.usage, Usage) if message.usage else None,
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


async def write_result(session: AsyncSession, row: TurnRow, result: Result) -> None:
    """Everything that `… → ended` writes; the caller holds the row's lock."""
    await session.execute(
        update(MessageRow)
        .where(col(MessageRow.id) == row.message_id)
        .values(
            answer=result.answer,
            marks=marks.pack(result.chunks),
            usage=msgspec.to_builtins(result.usage) if result.usage else None,
        )
    )
    if result.steps:
        steps = [{"message_id": row.message_id, **msgspec.structs.asdict(step)} for step in result.steps]
        await session.execute(insert(StepRow), steps)
    if result.snapshot is not None:
        await _write_snapshot(session, row, result.snapshot)
    now = datetime.now(UTC)
    await session.execute(
        update(ConversationRow).where(col(ConversationRow.id) == row.conversation_id).values(updated_at=now)
    )
    await session.execute(
        update(TurnRow)
        .where(col(TurnRow.id) == row.id)
        .values(
            {
                "state": TurnState.ENDED.value,
                "outcome": result.outcome.value,
                "error_code": result.error_code,
                "end_position": result.end_position,
                "lease_until": None,
                "checkpoint": None,
                "ended_at": now_plus(),
            }
        )
    )


async def _write_snapshot(session: AsyncSession, row: TurnRow, data: str) -> None:
    """Move the conversation's snapshot forward, never back (I7)."""
    upsert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgres_insert
    statement = upsert(SnapshotRow).values(
        conversation_id=row.conversation_id, seq=row.seq, data=data, updated_at=datetime.now(UTC)
    )
    new = statement.excluded
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["conversation_id"],
            set_={"seq": new.seq, "data": new.data, "updated_at": new.updated_at},
            where=col(SnapshotRow.seq) < new.seq,
        )
    )


async def end_expired(session: AsyncSession, which: ColumnElement[bool]) -> int:
    """`end_lost` for those of these turns whose lease ran out."""
    return await end_lost(
        session, which, or_(col(TurnRow.lease_until) < now_plus(), col(TurnRow.owner).is_(None))
    )


async def end_lost(session: AsyncSession, *which: ColumnElement[bool]) -> int:
    """End active turns that nobody drives any more, under a new epoch; whoever still tries is fenced."""
    ended = await session.execute(
        update(TurnRow)
        .where(col(TurnRow.state).in_(ACTIVE), *which)
        .values(
            {
                "state": TurnState.ENDED.value,
                "outcome": case(
                    (col(TurnRow.stop_at).is_(None), literal("failed")), else_=literal("stopped")
                ),
                "error_code": case((col(TurnRow.stop_at).is_(None), literal("turn_interrupted"))),
                "end_position": GATEWAY_END,
                "epoch": col(TurnRow.epoch) + 1,
                "lease_until": None,
                "ended_at": now_plus(),
            }
        )
    )
    return rows_changed(ended)
