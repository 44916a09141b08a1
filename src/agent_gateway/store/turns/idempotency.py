"""Idempotency-Keys: the same key and body never make a second turn (R15).

`begin` claims the key and looks it up only when it was taken. For an app with a rate limit the route looks
it up beforehand, too: a repetition is no new request and must not count. The count cannot be part of the
transaction of `begin`: it would be rolled back with each refused request, and its row would be locked for
as long as the transaction takes.
"""

import hashlib
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Caller, TurnRequest
from agent_gateway.errors import IdempotencyConflict
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import idempotency

IDEMPOTENCY_SECONDS: Final = 24 * 3600
"""How long a key is remembered."""


_KEY_SCOPE: Final = (
    idempotency.c.app_id == bindparam("app"),
    idempotency.c.user_id == bindparam("user"),
    idempotency.c.key == bindparam("key"),
)


def _key_scope(caller: Caller, request: TurnRequest) -> dict[str, str | None]:
    return {"app": caller.app.id, "user": caller.user, "key": request.idempotency_key}


def body_hash(request: TurnRequest) -> str:
    """The hash of what makes two posts with one key the same: query, inputs, conversation, files."""
    body = [request.query, request.inputs, request.conversation_id, request.files]
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


_FIND: Final = select(idempotency.c.turn_id, idempotency.c.body_hash).where(
    *_KEY_SCOPE, idempotency.c.created_at >= now_plus(-IDEMPOTENCY_SECONDS)
)


async def find_turn_of_key(session: AsyncSession, caller: Caller, request: TurnRequest) -> TaskId | None:
    """The turn that this request's Idempotency-Key began; IdempotencyConflict for another body."""
    row = (await session.execute(_FIND, _key_scope(caller, request))).first()
    if row is None:
        return None
    if row.body_hash != body_hash(request):
        raise IdempotencyConflict("This Idempotency-Key was used before with a different body.")
    return TaskId(row.turn_id)


def has_expired() -> ColumnElement[bool]:
    """The key is no longer remembered."""
    return idempotency.c.created_at < now_plus(-IDEMPOTENCY_SECONDS)


DELETE_EXPIRED_KEY: Final = delete(idempotency).where(*_KEY_SCOPE, has_expired())
CLAIM: Final = insert(idempotency).values(created_at=now_plus())


async def claim_key(
    connection: AsyncConnection, caller: Caller, request: TurnRequest, task_id: TaskId
) -> None:
    """Insert the key's row, before all others: of two equal posts the second one meets the key (R3).

    Raises IntegrityError when the key is taken.
    """
    scope = _key_scope(caller, request)
    await connection.execute(DELETE_EXPIRED_KEY, scope)
    row = {"turn_id": task_id, "body_hash": body_hash(request)}
    await connection.execute(
        CLAIM, {"app_id": scope["app"], "user_id": scope["user"], "key": scope["key"], **row}
    )
