"""Stopping turns in the rows, and deleting the conversation they belong to (R9, R16)."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import ConversationId, RunId, TaskId
from agent_gateway.domain.turns import Caller, Outcome, TurnState
from agent_gateway.store.db.database import now_plus
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, forms, is_open, outbox, turns
from agent_gateway.store.files import forget_files
from agent_gateway.store.question_forms import cancel_form
from agent_gateway.store.turns.outbox import OutboxKind, put_closing
from agent_gateway.store.turns.results import move_snapshot, write_result


@dataclass(frozen=True, slots=True)
class Stopped:
    """A turn that was asked to stop: its run is to be cancelled, if it is known yet."""

    task_id: TaskId
    run_id: RunId | None


async def stop_turn(connection: AsyncConnection, row: Row[Any], reason: str, turn_seconds: float) -> bool:
    """Ask an unended turn, whose row and conversation are locked, to stop.

    One whose run was not asked for yet ends at once. Returns whether that let a queued turn go.
    """
    await connection.execute(_STOP, {"task": row.id, "reason": reason})
    if row.state not in (TurnState.QUEUED, TurnState.PLANNED):
        return False
    result = Result(Outcome.STOPPED, (), (), GATEWAY_END)
    return await write_result(connection, row, result, turn_seconds)


async def interrupt(
    connection: AsyncConnection, conversation_id: ConversationId, by: TaskId, turn_seconds: float
) -> list[Stopped]:
    """Stop all that a new turn found in its conversation, which is locked: what runs, and what waits.

    What waits ends at once; the active turn is asked to stop, and its owner ends it.
    """
    stopped: list[Stopped] = []
    for row in (await connection.execute(_UNENDED, {"conversation": conversation_id})).all():
        if row.id == by:
            continue
        if row.state == TurnState.QUEUED:
            await stop_turn(connection, row, "interrupted", turn_seconds)
        else:
            await connection.execute(_STOP, {"task": row.id, "reason": "interrupted"})
        stopped.append(_stopped(row))
    return stopped


async def delete_conversation(
    connection: AsyncConnection, caller: Caller, conversation_id: ConversationId, turn_seconds: float
) -> tuple[list[Stopped], bool] | None:
    """Hide a conversation from now on, stop its turns, and see to its session (R16).

    Returns the turns that were stopped, and whether closing the session is due: if a turn still runs,
    that follows from its end. None when the caller has no such conversation.
    """
    scope = scope_of(caller.app.id, caller.user) | {"conversation": conversation_id}
    if await connection.scalar(_DELETE, scope) is None:
        return None
    await _keep_asked_session(connection, conversation_id)
    await cancel_form(connection, conversation_id)
    await forget_files(connection, conversation_id)
    await connection.execute(_FORGET_ERRANDS, scope)
    rows = (await connection.execute(_UNENDED, scope)).all()
    for row in rows:
        # A queued one that the end of a planned one lets go is the next to be ended.
        await stop_turn(connection, row, "deleted", turn_seconds)
    runs_on = any(row.state in (TurnState.SENDING, TurnState.RUNNING) for row in rows)
    closing = not runs_on and await put_closing(connection, conversation_id)
    return [_stopped(row) for row in rows], closing


def _stopped(row: Row[Any]) -> Stopped:
    return Stopped(TaskId(row.id), RunId(row.run_id) if row.run_id else None)


async def _keep_asked_session(connection: AsyncConnection, conversation_id: str) -> None:
    """The session in which a question is open is the one to close."""
    row = (await connection.execute(_ASKED_SESSION, {"conversation": conversation_id})).first()
    if row is not None:
        await move_snapshot(connection, conversation_id, row.seq, row.snapshot)


_STOP = (
    update(turns)
    .where(turns.c.id == bindparam("task"))
    .values(stop_at=func.coalesce(turns.c.stop_at, now_plus()), stop_reason=bindparam("reason"))
)
_DELETE = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), owned(conversations))
    .values(deleted_at=now_plus())
    .returning(conversations.c.id)
)
_UNENDED = (
    select(turns)
    .where(turns.c.conversation_id == bindparam("conversation"), turns.c.state != TurnState.ENDED)
    .order_by(turns.c.seq)
    .with_for_update()
)
_ASKED_SESSION = (
    select(forms.c.snapshot, turns.c.seq)
    .join(turns, turns.c.id == forms.c.turn_id)
    .where(
        forms.c.conversation_id == bindparam("conversation"), is_open(forms), forms.c.snapshot.is_not(None)
    )
)
# Nobody wants to know any more what would be made of the conversation.
_FORGET_ERRANDS = delete(outbox).where(
    outbox.c.kind.in_((OutboxKind.NAME_CONVERSATION.value, OutboxKind.SUGGEST_QUESTIONS.value)),
    outbox.c.turn_id.in_(select(turns.c.id).where(turns.c.conversation_id == bindparam("conversation"))),
)
