"""Begin: a turn's first rows in one transaction (I1, R3, R15)."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.domain import (
    Caller,
    ConversationId,
    MessageId,
    TaskId,
    Turn,
    TurnRequest,
    TurnState,
    new_id,
)
from agent_gateway.errors import ConversationBusy, IdempotencyConflict, NotFound, StoreUnavailable
from agent_gateway.store.database import Database, now_plus
from agent_gateway.store.results import ACTIVE, end_expired
from agent_gateway.store.tables import (
    ConversationRow,
    EndUserRow,
    IdempotencyRow,
    MessageRow,
    SnapshotRow,
    TurnRow,
)

IDEMPOTENCY_SECONDS: Final = 24 * 3600
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


async def begin(database: Database, terms: Terms, caller: Caller, request: TurnRequest) -> Turn | TaskId:
    """Write a turn's first rows, or find the turn that its Idempotency-Key made before.

    Returns a Turn that is now ours to run, or the task id of the earlier turn. Raises NotFound,
    ConversationBusy, IdempotencyConflict, StoreUnavailable.
    """
    for _ in range(3):
        try:
            async with database.transaction() as session:
                return await _write_rows(session, terms, caller, request)
        except (IntegrityError, ConversationBusy) as error:
            # Somebody was faster with the same key, end user or conversation: the key decides.
            if existing := await find_by_key(database, caller, request):
                return existing
            if isinstance(error, ConversationBusy):
                raise
    raise StoreUnavailable("begin met a conflict three times")


async def _write_rows(session: AsyncSession, terms: Terms, caller: Caller, request: TurnRequest) -> Turn:
    task_id, now = TaskId(new_id()), datetime.now(UTC)
    if request.idempotency_key:
        await _claim_key(session, caller, request, task_id, now)
    end_user_id = await _end_user(session, caller, now)
    if request.conversation_id:
        conversation = await _lock_conversation(session, caller, request.conversation_id, end_user_id)
        await _refuse_busy(session, conversation.id)
    else:
        conversation = await _new_conversation(session, caller, request, end_user_id, now)
    message = MessageRow(
        id=new_id(),
        conversation_id=conversation.id,
        seq=conversation.last_seq + 1,
        query=request.query,
        inputs=request.inputs,
        files=request.files,
        created_at=now,
    )
    await _write_turn(session, terms, caller, task_id, message)
    snapshot = await session.scalars(
        select(col(SnapshotRow.data)).where(col(SnapshotRow.conversation_id) == conversation.id)
    )
    return Turn(
        task_id=task_id,
        conversation_id=ConversationId(conversation.id),
        message_id=MessageId(message.id),
        created_at=int(now.timestamp()),
        app=caller.app,
        user=caller.user,
        query=request.query,
        inputs=request.inputs,
        files=request.files,
        snapshot=snapshot.first(),
        epoch=1,
        seconds_left=terms.turn_seconds,
    )


async def _claim_key(
    session: AsyncSession, caller: Caller, request: TurnRequest, task_id: TaskId, now: datetime
) -> None:
    """The key's row comes first, so that of two equal posts the loser meets the key (R3)."""
    await session.execute(
        delete(IdempotencyRow).where(
            *_key_scope(caller, request),
            col(IdempotencyRow.created_at) < now_plus(-IDEMPOTENCY_SECONDS),
        )
    )
    await session.execute(
        insert(IdempotencyRow).values(
            app_id=caller.app.id,
            user_id=caller.user,
            key=request.idempotency_key,
            turn_id=task_id,
            body_hash=_body_hash(request),
            created_at=now,
        )
    )


async def find_by_key(database: Database, caller: Caller, request: TurnRequest) -> TaskId | None:
    """The turn that this request's Idempotency-Key made; IdempotencyConflict for another body."""
    if not request.idempotency_key:
        return None
    async with database.reading() as session:
        found = await session.scalars(select(IdempotencyRow).where(*_key_scope(caller, request)))
        row = found.first()
    if row is None:
        return None
    if row.body_hash != _body_hash(request):
        raise IdempotencyConflict("This Idempotency-Key was used before with a different body.")
    return TaskId(row.turn_id)


async def _end_user(session: AsyncSession, caller: Caller, now: datetime) -> str:
    found = await session.scalars(
        select(col(EndUserRow.id)).where(
            col(EndUserRow.app_id) == caller.app.id, col(EndUserRow.external_id) == caller.user
        )
    )
    if end_user_id := found.first():
        return end_user_id
    end_user_id = new_id()
    await session.execute(
        insert(EndUserRow).values(
            id=end_user_id, app_id=caller.app.id, external_id=caller.user, created_at=now
        )
    )
    return end_user_id


async def _lock_conversation(
    session: AsyncSession, caller: Caller, conversation_id: ConversationId, end_user_id: str
) -> ConversationRow:
    found = await session.scalars(
        select(ConversationRow)
        .where(
            col(ConversationRow.id) == conversation_id,
            col(ConversationRow.app_id) == caller.app.id,
            col(ConversationRow.end_user_id) == end_user_id,
        )
        .with_for_update()
    )
    if conversation := found.first():
        return conversation
    raise NotFound("Conversation Not Exists.")


async def _refuse_busy(session: AsyncSession, conversation_id: str) -> None:
    """End the conversation's turn when nobody holds it any more; refuse while somebody does."""
    await end_expired(session, col(TurnRow.conversation_id) == conversation_id)
    active = await session.scalars(
        select(col(TurnRow.id)).where(
            col(TurnRow.conversation_id) == conversation_id, col(TurnRow.state).in_(ACTIVE)
        )
    )
    if task_id := active.first():
        raise ConversationBusy(task_id)


async def _new_conversation(
    session: AsyncSession, caller: Caller, request: TurnRequest, end_user_id: str, now: datetime
) -> ConversationRow:
    row = ConversationRow(
        id=new_id(),
        app_id=caller.app.id,
        end_user_id=end_user_id,
        name=_name_from(request.query),
        inputs=request.inputs,
        introduction=caller.app.config.opening_statement,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    await session.flush()
    return row


async def _write_turn(
    session: AsyncSession, terms: Terms, caller: Caller, task_id: TaskId, message: MessageRow
) -> None:
    await session.execute(
        update(ConversationRow)
        .where(col(ConversationRow.id) == message.conversation_id)
        .values(last_seq=message.seq, updated_at=message.created_at)
    )
    session.add(message)
    await session.flush()
    await session.execute(
        insert(TurnRow).values(
            id=task_id,
            app_version_id=caller.app.version_id,
            conversation_id=message.conversation_id,
            message_id=message.id,
            seq=message.seq,
            state=TurnState.PLANNED.value,
            owner=terms.owner,
            epoch=1,
            adoptions=0,
            lease_until=now_plus(terms.lease_seconds),
            deadline_at=now_plus(terms.turn_seconds),
            fold_version=terms.fold_version,
            created_at=message.created_at,
        )
    )


def _body_hash(request: TurnRequest) -> str:
    """What makes two posts with one key the same: query, inputs, conversation, files."""
    body = [request.query, request.inputs, request.conversation_id, request.files]
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def _key_scope(caller: Caller, request: TurnRequest) -> tuple[ColumnElement[bool], ...]:
    return (
        col(IdempotencyRow.app_id) == caller.app.id,
        col(IdempotencyRow.user_id) == caller.user,
        col(IdempotencyRow.key) == request.idempotency_key,
    )


def _name_from(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…"
