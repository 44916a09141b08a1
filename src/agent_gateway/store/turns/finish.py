"""What the end of a turn writes, within the transaction that ends it."""

from typing import Final

import msgspec
from sqlalchemy import bindparam, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.events import Result
from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import conversations, messages, snapshots, steps, turns
from agent_gateway.store.db.upsert import Upsert
from agent_gateway.store.message_files import write_artifacts
from agent_gateway.store.question_forms import drop_question_snapshot
from agent_gateway.store.turns.chunk_offsets import pack_in_thread
from agent_gateway.store.turns.locks import LockedTurn
from agent_gateway.store.turns.queue import promote

WRITE_ANSWER: Final = (
    update(messages)
    .where(messages.c.id == bindparam("message"))
    .values(
        answer=bindparam("answer"),
        marks=bindparam("marks"),
        usage=bindparam("usage"),
        finish_reason=bindparam("finish_reason"),
    )
)
TOUCH_CONVERSATION: Final = (
    update(conversations).where(conversations.c.id == bindparam("conversation")).values(updated_at=now_plus())
)
END_TURN: Final = (
    update(turns)
    .where(turns.c.id == bindparam("task"))
    .values(
        state=TurnState.ENDED.value,
        outcome=bindparam("outcome"),
        error_code=bindparam("error_code"),
        cause=bindparam("cause"),
        end_position=bindparam("end_position"),
        lease_until=None,
        checkpoint=None,
        ended_at=now_plus(),
    )
)


async def write_result(
    connection: AsyncConnection, turn: LockedTurn, result: Result, turn_seconds: float
) -> bool:
    """Everything that `… → ended` writes; the caller holds the locks of conversation and turn.

    Plans the conversation's next queued turn, which may take `turn_seconds`. Returns whether there was
    one.
    """
    await connection.execute(
        WRITE_ANSWER,
        {
            "message": turn.message_id,
            "answer": result.answer,
            "marks": await pack_in_thread(result.chunks),
            "usage": msgspec.to_builtins(result.usage) if result.usage else None,
            "finish_reason": result.finish_reason,
        },
    )
    if result.steps:
        rows = [{"message_id": turn.message_id, **msgspec.structs.asdict(step)} for step in result.steps]
        await connection.execute(insert(steps), rows)
    await write_artifacts(connection, turn.message_id, result.files)
    if result.snapshot is not None:
        await move_snapshot(connection, turn.conversation_id, turn.seq, result.snapshot)
    if turn.form_id is not None:
        await drop_question_snapshot(connection, turn)
    await connection.execute(TOUCH_CONVERSATION, {"conversation": turn.conversation_id})
    await connection.execute(
        END_TURN,
        {
            "task": turn.id,
            "outcome": result.outcome.value,
            "error_code": result.error_code,
            "cause": msgspec.to_builtins(result.cause) if result.cause else None,
            "end_position": result.end_position,
        },
    )
    return await promote(connection, turn.conversation_id, turn_seconds)


MOVE_SNAPSHOT: Final = Upsert(
    snapshots,
    ["conversation_id"],
    values={"updated_at": now_plus()},
    change=lambda new: {"seq": new.seq, "data": new.data, "updated_at": new.updated_at},
    only_if=lambda new: snapshots.c.seq < new.seq,
)


async def move_snapshot(connection: AsyncConnection, conversation_id: str, seq: int, snapshot: str) -> None:
    """Make this the conversation's session snapshot, unless it has that of a later turn (I7)."""
    row = {"conversation_id": conversation_id, "seq": seq, "data": snapshot}
    await MOVE_SNAPSHOT.run(connection, row)
