"""Stopping turns in the rows, and deleting the conversation they belong to (R9, R16).

Every function here runs under the lock of the conversation.
"""

from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import ConversationId, RunId, TaskId
from agent_gateway.domain.turns import Caller, Outcome, TurnState
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, forms, is_open, outbox, turns
from agent_gateway.store.message_files import detach_files
from agent_gateway.store.question_forms import cancel_form
from agent_gateway.store.turns.finish import move_snapshot, write_result
from agent_gateway.store.turns.locks import LOCKED_TURN, LockedTurn
from agent_gateway.store.turns.outbox import OutboxKind, enqueue_closing

_WITHOUT_RUN: Final = frozenset({TurnState.QUEUED, TurnState.PLANNED})


@dataclass(frozen=True, slots=True)
class Stopped:
    """A turn that was asked to stop: its run is to be cancelled, if it is known yet."""

    task_id: TaskId
    run_id: RunId | None
    ended: bool
    """It had no run yet, and ended at once."""

    @classmethod
    def of(cls, turn: LockedTurn) -> "Stopped":
        """The turn of this row, after `stop_turn`."""
        run_id = RunId(turn.run_id) if turn.run_id else None
        return cls(TaskId(turn.id), run_id, ended=turn.state in _WITHOUT_RUN)


_STOP: Final = (
    update(turns)
    .where(turns.c.id == bindparam("task"))
    .values(stop_at=func.coalesce(turns.c.stop_at, now_plus()), stop_reason=bindparam("reason"))
)


async def stop_turn(connection: AsyncConnection, turn: LockedTurn, reason: str, turn_seconds: float) -> bool:
    """Record that an unended turn is to stop.

    A turn without a run ends at once. Returns whether that planned a queued turn.
    """
    await connection.execute(_STOP, {"task": turn.id, "reason": reason})
    if turn.state not in _WITHOUT_RUN:
        return False
    result = Result(Outcome.STOPPED, (), (), GATEWAY_END)
    return await write_result(connection, turn, result, turn_seconds)


_UNENDED: Final = LOCKED_TURN.where(
    turns.c.conversation_id == bindparam("conversation"), turns.c.state != TurnState.ENDED
).order_by(turns.c.seq)


async def _unended(connection: AsyncConnection, conversation_id: ConversationId) -> list[LockedTurn]:
    rows = await connection.execute(_UNENDED, {"conversation": conversation_id})
    return [LockedTurn(*row) for row in rows]


async def interrupt(
    connection: AsyncConnection, conversation_id: ConversationId, by: TaskId, turn_seconds: float
) -> list[Stopped]:
    """Stop every turn that a new turn found in its conversation.

    Queued turns end at once. The active turn is asked to stop, and its owner ends it.
    """
    stopped: list[Stopped] = []
    for turn in await _unended(connection, conversation_id):
        if turn.id == by:
            continue
        if turn.state == TurnState.QUEUED:
            await stop_turn(connection, turn, "interrupted", turn_seconds)
        else:
            await connection.execute(_STOP, {"task": turn.id, "reason": "interrupted"})
        stopped.append(replace(Stopped.of(turn), ended=turn.state == TurnState.QUEUED))
    return stopped


_DELETE: Final = (
    update(conversations)
    .where(conversations.c.id == bindparam("conversation"), conversations.c.deleted_at.is_(None))
    .values(deleted_at=now_plus())
    .returning(conversations.c.id)
)
_DELETE_OF_CALLER: Final = _DELETE.where(owned(conversations))
# Nobody will see a name or suggestions of a deleted conversation.
_DELETE_OUTBOX_ENTRIES: Final = delete(outbox).where(
    outbox.c.kind.in_((OutboxKind.NAME_CONVERSATION.value, OutboxKind.SUGGEST_QUESTIONS.value)),
    outbox.c.turn_id.in_(select(turns.c.id).where(turns.c.conversation_id == bindparam("conversation"))),
)


async def delete_conversation(
    connection: AsyncConnection, caller: Caller, conversation_id: ConversationId, turn_seconds: float
) -> tuple[list[Stopped], bool] | None:
    """Mark a caller's conversation as deleted, stop its turns, and have its session closed (R16).

    Returns the turns that were stopped, and whether closing the session is due now. None when the caller has
    no such conversation.
    """
    scope = scope_of(caller.app.id, caller.user) | {"conversation": conversation_id}
    if await connection.scalar(_DELETE_OF_CALLER, scope) is None:
        return None
    return await _end_conversation(connection, conversation_id, turn_seconds)


async def mark_deleted(
    connection: AsyncConnection, conversation_id: ConversationId, turn_seconds: float
) -> list[Stopped]:
    """Mark a conversation as deleted on behalf of an operator; returns the turns that were stopped."""
    if await connection.scalar(_DELETE, {"conversation": conversation_id}) is None:
        return []
    stopped, _ = await _end_conversation(connection, conversation_id, turn_seconds)
    return stopped


async def _end_conversation(
    connection: AsyncConnection, conversation_id: ConversationId, turn_seconds: float
) -> tuple[list[Stopped], bool]:
    """Stop the turns of a conversation that was just deleted, and arrange that its session is closed (R16).

    Returns the turns that were stopped, and whether closing the session is due now: if a turn still
    runs, its end makes it due.
    """
    await _restore_asking_session(connection, conversation_id)
    await cancel_form(connection, conversation_id)
    await detach_files(connection, conversation_id)
    await connection.execute(_DELETE_OUTBOX_ENTRIES, {"conversation": conversation_id})
    found = await _unended(connection, conversation_id)
    for turn in found:
        # The end of a planned turn may plan a queued one: that is the next to be ended here.
        await stop_turn(connection, turn, "deleted", turn_seconds)
    is_running = any(turn.state in (TurnState.SENDING, TurnState.RUNNING) for turn in found)
    closing = not is_running and await enqueue_closing(connection, conversation_id)
    return [Stopped.of(turn) for turn in found], closing


_ASKING_SESSION: Final = (
    select(forms.c.snapshot, turns.c.seq)
    .join(turns, turns.c.id == forms.c.turn_id)
    .where(
        forms.c.conversation_id == bindparam("conversation"), is_open(forms), forms.c.snapshot.is_not(None)
    )
)


async def _restore_asking_session(connection: AsyncConnection, conversation_id: str) -> None:
    """While a question is open, the session to close is the one in which it was asked."""
    row = (await connection.execute(_ASKING_SESSION, {"conversation": conversation_id})).first()
    if row is not None:
        await move_snapshot(connection, conversation_id, row.seq, row.snapshot)
