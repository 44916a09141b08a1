"""Idempotency-Keys: the same key and body never make a second turn (R15)."""

import hashlib
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Caller, TurnRequest
from agent_gateway.errors import IdempotencyConflict
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.tables import idempotency

IDEMPOTENCY_SECONDS: Final = 24 * 3600


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


async def claim_key(
    connection: AsyncConnection, caller: Caller, request: TurnRequest, task_id: TaskId
) -> None:
    """The key's row comes first, so that of two equal posts the loser meets the key (R3)."""
    scope = _key_scope(caller, request)
    await connection.execute(_FORGET_OLD_KEY, scope)
    row = {"turn_id": task_id, "body_hash": _body_hash(request)}
    await connection.execute(
        _CLAIM, {"app_id": scope["app"], "user_id": scope["user"], "key": scope["key"], **row}
    )


def _key_scope(caller: Caller, request: TurnRequest) -> dict[str, Any]:
    return {"app": caller.app.id, "user": caller.user, "key": request.idempotency_key}


def _body_hash(request: TurnRequest) -> str:
    """What makes two posts with one key the same: query, inputs, conversation, files."""
    body = [request.query, request.inputs, request.conversation_id, request.files]
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


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
_CLAIM = insert(idempotency).values(created_at=now_plus())
