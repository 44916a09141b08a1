"""Begin: a turn's first rows in one transaction (I1, R3, R15)."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain import (
    Caller,
    ConversationId,
    MessageId,
    RunId,
    TaskId,
    Turn,
    TurnRequest,
    TurnState,
    new_id,
)
from agent_gateway.errors import ConversationBusy, IdempotencyConflict, NotFound, StoreUnavailable
from agent_gateway.store.database import Database, now_plus
from agent_gateway.store.files import attach_files, resolve_files
from agent_gateway.store.tables import (
    conversations,
    end_users,
    idempotency,
    is_active,
    messages,
    snapshots,
    turns,
)

IDEMPOTENCY_SECONDS: Final = 24 * 3600
MOST_QUEUED: Final = 10
"""Turns that may wait behind a conversation's active one."""
NAME_LENGTH: Final = 64
"""A new conversation is named by this many characters of its first query."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms this process takes a turn."""

    owner: str
    """A fresh UUID per process start."""
    lease_seconds: float
    turn_seconds: float
    fold_version: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn that was begun: `planned` and ours to run, or `queued` behind an active one."""

    turn: Turn
    interrupted: TaskId | None = None
    """The active turn that this one asked to stop, by the app's policy."""
    interrupted_run: RunId | None = None


async def begin(
    database: Database,
    terms: Terms,
    caller: Caller,
    request: TurnRequest,
    task_id: TaskId | None = None,
) -> Begun | TaskId:
    """Write a turn's first rows, or find the turn that its Idempotency-Key made before.

    Returns what was begun, or the task id of the earlier turn. Raises NotFound, FileNotFound,
    ConversationBusy, IdempotencyConflict, StoreUnavailable. Who names the `task_id` can find the turn
    again after a commit whose answer was lost (R14).
    """
    task_id = task_id or TaskId(new_id())
    for _ in range(3):
        try:
            async with database.transaction() as connection:
                return await _write_rows(connection, terms, caller, request, task_id)
        except (IntegrityError, ConversationBusy) as error:
            # Somebody was faster with the same key, end user or conversation: the key decides.
            if existing := await find_by_key(database, caller, request):
                return existing
            if isinstance(error, ConversationBusy):
                raise
    raise StoreUnavailable("begin met a conflict three times")


async def find_by_key(database: Database, caller: Caller, request: TurnRequest) -> TaskId | None:
    """The turn that this request's Idempotency-Key made; IdempotencyConflict for another body."""
    if not request.idempotency_key:
        return None
    async with database.reading() as session:
        row = (await session.execute(_FIND_KEY, _key_scope(caller, request))).first()
    if row is None:
        return None
    if row.body_hash != _body_hash(request):
        raise IdempotencyConflict("This Idempotency-Key was used before with a different body.")
    return TaskId(row.turn_id)


async def forget_old_keys(database: Database) -> int:
    """Delete the keys that are not remembered any more; returns their number."""
    async with database.transaction() as connection:
        gone = await connection.execute(
            delete(idempotency).where(idempotency.c.created_at < now_plus(-IDEMPOTENCY_SECONDS))
        )
        return gone.rowcount


async def _write_rows(
    connection: AsyncConnection, terms: Terms, caller: Caller, request: TurnRequest, task_id: TaskId
) -> Begun:
    message_id, now = MessageId(new_id()), datetime.now(UTC)
    if request.idempotency_key:
        await _claim_key(connection, caller, request, task_id, now)
    snapshot, active = None, None
    if request.conversation_id:
        conversation_id = request.conversation_id
        seq, active = await _go_on(connection, caller, conversation_id, now)
        snapshot = await connection.scalar(_SNAPSHOT, {"conversation": conversation_id})
    else:
        conversation_id, seq = ConversationId(new_id()), 1
        await _new_conversation(connection, caller, request, conversation_id, now)
    files = await resolve_files(connection, caller, request.files)
    await connection.execute(
        insert(messages),
        {
            "id": message_id,
            "conversation_id": conversation_id,
            "seq": seq,
            "query": request.query,
            "inputs": request.inputs,
            "files": msgspec.to_builtins(files),
            "marks": b"",
            "created_at": now,
        },
    )
    await attach_files(connection, message_id, files)
    await connection.execute(
        _INSERT_TURN,
        {
            "id": task_id,
            "app_version_id": caller.app.version_id,
            "conversation_id": conversation_id,
            "message_id": message_id,
            "seq": seq,
            "state": TurnState.QUEUED if active else TurnState.PLANNED,
            "owner": None if active else terms.owner,
            "lease_seconds": terms.lease_seconds,
            "turn_seconds": terms.turn_seconds,
            "fold_version": terms.fold_version,
            "created_at": now,
        },
    )
    turn = Turn(
        task_id=task_id,
        conversation_id=conversation_id,
        message_id=message_id,
        created_at=int(now.timestamp()),
        app=caller.app,
        user=caller.user,
        query=request.query,
        inputs=request.inputs,
        files=files,
        snapshot=snapshot,
        epoch=1,
        seconds_left=terms.turn_seconds,
        state=TurnState.QUEUED if active else TurnState.PLANNED,
    )
    if active is None or caller.app.config.on_busy != "interrupt":
        return Begun(turn)
    await connection.execute(_INTERRUPT, {"task": active.id})
    return Begun(turn, TaskId(active.id), RunId(active.run_id) if active.run_id else None)


async def _claim_key(
    connection: AsyncConnection, caller: Caller, request: TurnRequest, task_id: TaskId, now: datetime
) -> None:
    """The key's row comes first, so that of two equal posts the loser meets the key (R3)."""
    scope = _key_scope(caller, request)
    await connection.execute(_FORGET_OLD_KEY, scope)
    row = {"turn_id": task_id, "body_hash": _body_hash(request), "created_at": now}
    await connection.execute(
        insert(idempotency), {"app_id": scope["app"], "user_id": scope["user"], "key": scope["key"], **row}
    )


async def _go_on(
    connection: AsyncConnection, caller: Caller, conversation_id: ConversationId, now: datetime
) -> tuple[int, Row[Any, Any] | None]:
    """Lock the caller's conversation by giving it its next number; also its active turn, if any.

    Raises ConversationBusy when the app wants that, or when too many turns wait already.
    """
    found = await connection.execute(
        _NEXT_SEQ,
        {"conversation": conversation_id, "app": caller.app.id, "user": caller.user, "now": now},
    )
    seq = found.scalar()
    if seq is None:
        raise NotFound("Conversation Not Exists.")
    active = (await connection.execute(_ACTIVE_TURN, {"conversation": conversation_id})).first()
    if active is not None:
        waiting = await connection.scalar(_WAITING, {"conversation": conversation_id}) or 0
        if caller.app.config.on_busy == "reject" or waiting >= MOST_QUEUED:
            raise ConversationBusy(active.id)
    return int(seq), active


async def _new_conversation(
    connection: AsyncConnection,
    caller: Caller,
    request: TurnRequest,
    conversation_id: ConversationId,
    now: datetime,
) -> None:
    scope = {"app": caller.app.id, "user": caller.user}
    end_user_id = await connection.scalar(_END_USER, scope)
    if end_user_id is None:
        end_user_id = new_id()
        row = {"id": end_user_id, "app_id": scope["app"], "external_id": scope["user"], "created_at": now}
        await connection.execute(insert(end_users), row)
    await connection.execute(
        insert(conversations),
        {
            "id": conversation_id,
            "app_id": caller.app.id,
            "end_user_id": end_user_id,
            "name": _name_from(request.query),
            "inputs": request.inputs,
            "introduction": caller.app.config.opening_statement,
            "last_seq": 1,
            "created_at": now,
            "updated_at": now,
        },
    )


def _key_scope(caller: Caller, request: TurnRequest) -> dict[str, Any]:
    return {"app": caller.app.id, "user": caller.user, "key": request.idempotency_key}


def _body_hash(request: TurnRequest) -> str:
    """What makes two posts with one key the same: query, inputs, conversation, files."""
    body = [request.query, request.inputs, request.conversation_id, request.files]
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def _name_from(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…"


_END_USER = select(end_users.c.id).where(
    end_users.c.app_id == bindparam("app"), end_users.c.external_id == bindparam("user")
)
_NEXT_SEQ = (
    update(conversations)
    .where(
        conversations.c.id == bindparam("conversation"),
        conversations.c.app_id == bindparam("app"),
        conversations.c.end_user_id == _END_USER.scalar_subquery(),
    )
    .values(last_seq=conversations.c.last_seq + 1, updated_at=bindparam("now"))
    .returning(conversations.c.last_seq)
)
_ACTIVE_TURN = select(turns.c.id, turns.c.run_id).where(
    turns.c.conversation_id == bindparam("conversation"), is_active(turns)
)
_WAITING = select(func.count()).where(
    turns.c.conversation_id == bindparam("conversation"), turns.c.state == TurnState.QUEUED.value
)
_INTERRUPT = (
    update(turns)
    .where(turns.c.id == bindparam("task"))
    .values(stop_at=func.coalesce(turns.c.stop_at, now_plus()), stop_reason="interrupted")
)
_SNAPSHOT = select(snapshots.c.data).where(snapshots.c.conversation_id == bindparam("conversation"))
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
            "created_at",
        )
    },
)
_KEY_SCOPE = (
    idempotency.c.app_id == bindparam("app"),
    idempotency.c.user_id == bindparam("user"),
    idempotency.c.key == bindparam("key"),
)
_FIND_KEY = select(idempotency.c.turn_id, idempotency.c.body_hash).where(
    *_KEY_SCOPE, idempotency.c.created_at >= now_plus(-IDEMPOTENCY_SECONDS)
)
_FORGET_OLD_KEY = delete(idempotency).where(
    *_KEY_SCOPE, idempotency.c.created_at < now_plus(-IDEMPOTENCY_SECONDS)
)
