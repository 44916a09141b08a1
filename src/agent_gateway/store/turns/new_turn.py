"""The first rows of a turn, whoever begins it: a message, an answer to a form, or its expiry."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import bindparam, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.files import InputFile
from agent_gateway.domain.ids import AppVersionId, ConversationId, FormId, MessageId, TaskId, new_id
from agent_gateway.domain.turns import NO_TRACE, Trace, TurnState
from agent_gateway.store.db.database import now_plus
from agent_gateway.store.db.tables import messages, turns
from agent_gateway.store.files import attach_files


@dataclass(frozen=True, slots=True)
class OwnerContext:
    """Under which terms this process takes a turn."""

    owner: str
    """A fresh UUID per process start."""
    lease_seconds: float
    turn_seconds: float
    fold_versions: tuple[int, ...]
    """The folds that this release knows; the first is that of new turns (R17)."""


@dataclass(frozen=True, slots=True)
class NewTurn:
    """The first rows of a turn: its message's and its own."""

    task_id: TaskId
    conversation_id: ConversationId
    app_version_id: AppVersionId
    seq: int
    query: str
    inputs: dict[str, Any]
    """What the message stores of them (store/turns/inputs.py)."""
    files: list[InputFile]
    state: TurnState
    owner: str | None
    form_id: FormId | None = None
    inputs_of: MessageId | None = None
    trace: Trace = NO_TRACE


async def insert_turn(
    connection: AsyncConnection, terms: OwnerContext, new: NewTurn, now: datetime
) -> MessageId:
    """The message and the turn; the caller holds the conversation's lock, which gave it its number."""
    message_id = MessageId(new_id())
    await connection.execute(
        insert(messages),
        {
            "id": message_id,
            "conversation_id": new.conversation_id,
            "seq": new.seq,
            "query": new.query,
            "inputs": new.inputs,
            "inputs_of": new.inputs_of,
            "files": msgspec.to_builtins(new.files),
            "marks": b"",
            "created_at": now,
        },
    )
    await attach_files(connection, message_id, new.files)
    await connection.execute(
        _INSERT_TURN,
        {
            "id": new.task_id,
            "app_version_id": new.app_version_id,
            "conversation_id": new.conversation_id,
            "message_id": message_id,
            "seq": new.seq,
            "state": new.state,
            "owner": new.owner,
            "form_id": new.form_id,
            "trace_id": new.trace.id or None,
            "trace_session_id": new.trace.session_id or None,
            "lease_seconds": terms.lease_seconds,
            "turn_seconds": terms.turn_seconds,
            "fold_version": terms.fold_versions[0],
            "created_at": now,
        },
    )
    return message_id


_INSERT_TURN = insert(turns).values(
    epoch=1,
    adoptions=0,
    lease_until=now_plus(bindparam("lease_seconds")),
    deadline_at=now_plus(bindparam("turn_seconds")),
    **{
        name: bindparam(name)
        for name in (
            "id",
            "app_version_id",
            "conversation_id",
            "message_id",
            "seq",
            "state",
            "owner",
            "fold_version",
            "form_id",
            "trace_id",
            "trace_session_id",
            "created_at",
        )
    },
)
