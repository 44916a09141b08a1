"""The four writes of a turn on SQLite: functions in the thread of its one writer, many turns in one commit.

Nobody else writes meanwhile, so what a function has read stays true until it returns. Each turn has a
savepoint: one that the database refuses takes back nothing but itself.
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import bindparam, exists, insert, select

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.prepared import PreparedForSqlite, with_parameters
from agent_gateway.store.db.scope import END_USER, owned
from agent_gateway.store.db.tables import (
    conversations,
    forms,
    is_active,
    is_open,
    messages,
    snapshots,
    steps,
    turns,
)
from agent_gateway.store.turns.common_path import Begun, NewMessage, OwnedTurn, Running, TurnEnd
from agent_gateway.store.turns.conversation_state import INSERT_CONVERSATION, INSERT_USER
from agent_gateway.store.turns.finish import END_TURN, MOVE_SNAPSHOT, TOUCH_CONVERSATION, WRITE_ANSWER
from agent_gateway.store.turns.idempotency import CLAIM, DELETE_EXPIRED_KEY
from agent_gateway.store.turns.inputs import own_inputs
from agent_gateway.store.turns.locks import NEXT_SEQ
from agent_gateway.store.turns.rows import INSERT_TURN, OwnerContext
from agent_gateway.store.turns.transitions import ARM, MARK_RUNNING, OURS, RENEW

Write = TypeVar("Write")
Outcome = TypeVar("Outcome")

_FREE: Final = (
    select(conversations.c.inputs, snapshots.c.data)
    .outerjoin(snapshots, snapshots.c.conversation_id == conversations.c.id)
    .where(
        conversations.c.id == bindparam("conversation"),
        owned(conversations),
        conversations.c.app_version_id == bindparam("version"),
        ~exists().where(turns.c.conversation_id == conversations.c.id, is_active(turns)),
        ~exists().where(forms.c.conversation_id == conversations.c.id, is_open(forms)),
    )
)
_QUEUED: Final = turns.alias("queued")
_ENDING: Final = (
    select(turns.c.message_id, turns.c.seq, conversations.c.naming)
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .where(
        *OURS,
        is_active(turns),
        turns.c.stop_at.is_(None),
        turns.c.form_id.is_(None),
        conversations.c.deleted_at.is_(None),
        ~exists().where(
            _QUEUED.c.conversation_id == turns.c.conversation_id, _QUEUED.c.state == TurnState.QUEUED.value
        ),
    )
)
END_USER_ID: Final = PreparedForSqlite(END_USER)
FREE_CONVERSATION: Final = PreparedForSqlite(_FREE)
NUMBER: Final = PreparedForSqlite(NEXT_SEQ)
DELETE_OLD_KEY: Final = PreparedForSqlite(DELETE_EXPIRED_KEY)
CLAIM_KEY: Final = PreparedForSqlite(
    with_parameters(CLAIM, "app_id", "user_id", "key", "turn_id", "body_hash")
)
NEW_USER: Final = PreparedForSqlite(with_parameters(INSERT_USER, "id", "app_id", "external_id"))
NEW_CONVERSATION: Final = PreparedForSqlite(
    with_parameters(
        INSERT_CONVERSATION,
        *("id", "app_id", "app_version_id", "end_user_id", "name", "naming", "inputs", "introduction"),
    )
)
NEW_MESSAGE: Final = PreparedForSqlite(
    with_parameters(
        insert(messages).values(marks=b""),
        *("id", "conversation_id", "seq", "query", "inputs", "files", "created_at"),
    )
)
NEW_TURN: Final = PreparedForSqlite(INSERT_TURN)
ARM_TURN: Final = PreparedForSqlite(ARM)
STORE_RUN: Final = PreparedForSqlite(MARK_RUNNING)
RENEW_LEASE: Final = PreparedForSqlite(RENEW)
ENDING: Final = PreparedForSqlite(_ENDING)
ANSWER: Final = PreparedForSqlite(WRITE_ANSWER)
NEW_STEP: Final = PreparedForSqlite(with_parameters(insert(steps), *(column.name for column in steps.c)))
SNAPSHOT: Final = PreparedForSqlite(
    with_parameters(MOVE_SNAPSHOT.statements["sqlite"], "conversation_id", "seq", "data")
)
TOUCH: Final = PreparedForSqlite(TOUCH_CONVERSATION)
END: Final = PreparedForSqlite(END_TURN)


class CommonWritesOnSqlite:
    """Implements `CommonWrites`."""

    def __init__(self, database: Database, context: OwnerContext) -> None:
        self._database = database
        self._context = context

    async def begin(self, messages: Sequence[NewMessage]) -> list[Begun | None]:
        """Begin turns (R3)."""
        return await self._each(messages, self._begin, refused=None)

    async def arm(self, owned: Sequence[OwnedTurn]) -> list[bool]:
        """`planned → sending` (R4)."""
        return await self._database.write(lambda connection: [self._arm(connection, turn) for turn in owned])

    async def mark_running(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """`sending → running` (R4)."""
        return await self._database.write(
            lambda connection: [self._mark_running(connection, turn) for turn in owned]
        )

    async def renew(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """Renew leases (R6)."""
        return await self._database.shielded(
            self._database.write(lambda connection: [self._renew(connection, turn) for turn in owned])
        )

    async def finish(self, ends: Sequence[TurnEnd]) -> list[bool]:
        """`running → ended` (R7)."""
        return await self._each(ends, self._finish, refused=False)

    async def _each(
        self,
        writes: Sequence[Write],
        work: Callable[[sqlite3.Connection, Write], Outcome],
        *,
        refused: Outcome,
    ) -> list[Outcome]:
        """Do this for each write, all in one transaction; `refused` for those that the database refuses."""

        def all_of_them(connection: sqlite3.Connection) -> list[Outcome]:
            return [_savepoint(connection, work, write, refused) for write in writes]

        return await self._database.write(all_of_them)

    def _begin(self, connection: sqlite3.Connection, new: NewMessage) -> Begun | None:
        kept = None if new.starts else _conversation(connection, new)
        if not new.starts and kept is None:
            return None
        if new.key is not None:
            key = {"app": new.app, "user": new.external_id, "key": new.key}
            DELETE_OLD_KEY.execute(connection, key)
            claim = {"app_id": new.app, "user_id": new.external_id, "key": new.key}
            CLAIM_KEY.execute(connection, {**claim, "turn_id": new.task, "body_hash": new.body_hash})
        sent = msgspec.json.decode(new.inputs)
        if kept is None:
            kept = _start(connection, new, sent)
        seq, now, inputs, snapshot = kept
        NEW_MESSAGE.execute(
            connection,
            {
                "id": new.message,
                "conversation_id": new.conversation,
                "seq": seq,
                "query": new.query,
                "inputs": {} if new.starts else own_inputs(inputs, {**inputs, **sent}),
                "files": msgspec.json.decode(new.files),
                "created_at": now,
            },
        )
        NEW_TURN.execute(
            connection,
            {
                "id": new.task,
                "app_version_id": new.version,
                "conversation_id": new.conversation,
                "message_id": new.message,
                "seq": seq,
                "state": TurnState.PLANNED.value,
                "owner": self._context.owner,
                "fold_version": self._context.fold_versions[0],
                "form_id": None,
                "trace_id": new.trace_id,
                "trace_session_id": new.trace_session_id,
                "request_id": new.request_id,
                "traceparent": new.traceparent,
                "lease_seconds": self._context.lease_seconds,
                "turn_seconds": self._context.turn_seconds,
                "created_at": now,
            },
        )
        return Begun(now, snapshot, msgspec.json.encode(inputs).decode())

    def _arm(self, connection: sqlite3.Connection, turn: OwnedTurn) -> bool:
        return ARM_TURN.execute(connection, self._ours(turn)).rowcount == 1

    def _mark_running(self, connection: sqlite3.Connection, turn: OwnedTurn) -> Running | None:
        row = STORE_RUN.first(connection, {**self._ours(turn), "run_id": turn.run})
        return None if row is None else Running(row[0] is not None)

    def _renew(self, connection: sqlite3.Connection, turn: OwnedTurn) -> Running | None:
        values = {**self._ours(turn), "lease_seconds": self._context.lease_seconds}
        row = RENEW_LEASE.first(connection, values)
        return None if row is None else Running(row[0] is not None)

    def _finish(self, connection: sqlite3.Connection, end: TurnEnd) -> bool:
        found = ENDING.first(connection, self._ours(end))
        if found is None or (end.may_name and found[2] == "open"):
            return False
        message_id, seq, _ = found
        ANSWER.execute(
            connection,
            {
                "message": message_id,
                "answer": end.answer,
                "marks": end.marks,
                "usage": msgspec.json.decode(end.usage) if end.usage else None,
                "finish_reason": end.finish_reason,
            },
        )
        for step in end.steps:
            NEW_STEP.execute(connection, {"message_id": message_id, **msgspec.structs.asdict(step)})
        if end.snapshot is not None:
            row = {"conversation_id": end.conversation, "seq": seq, "data": end.snapshot}
            SNAPSHOT.execute(connection, row)
        TOUCH.execute(connection, {"conversation": end.conversation})
        END.execute(
            connection,
            {
                "task": end.task,
                "outcome": end.outcome,
                "error_code": end.error_code,
                "cause": msgspec.json.decode(end.cause) if end.cause else None,
                "end_position": end.end_position,
            },
        )
        return True

    def _ours(self, turn: OwnedTurn | TurnEnd) -> dict[str, str | int]:
        return {"task": turn.task, "our_owner": self._context.owner, "our_epoch": turn.epoch}


def _conversation(
    connection: sqlite3.Connection, new: NewMessage
) -> tuple[int, datetime, dict[str, Any], str | None] | None:
    """Give the turn its number in the conversation, if that is free; also its inputs and snapshot."""
    scope = {"app": new.app, "user": new.external_id}
    of = {"conversation": new.conversation, "version": new.version}
    free = FREE_CONVERSATION.first(connection, scope | of)
    if free is None:
        return None
    inputs, snapshot = free
    numbered = NUMBER.first(connection, {"conversation": new.conversation})
    assert numbered is not None
    return numbered[0], numbered[1], inputs, snapshot


def _start(
    connection: sqlite3.Connection, new: NewMessage, inputs: dict[str, Any]
) -> tuple[int, datetime, dict[str, Any], None]:
    """Insert a conversation, and its end user before the first one."""
    found = END_USER_ID.first(connection, {"app": new.app, "user": new.external_id})
    user = found[0] if found else new.end_user
    if found is None:
        NEW_USER.execute(connection, {"id": user, "app_id": new.app, "external_id": new.external_id})
    row = NEW_CONVERSATION.first(
        connection,
        {
            "id": new.conversation,
            "app_id": new.app,
            "app_version_id": new.version,
            "end_user_id": user,
            "name": new.name,
            "naming": new.naming,
            "inputs": inputs,
            "introduction": new.introduction,
        },
    )
    assert row is not None
    return 1, row[0], inputs, None


def _savepoint(
    connection: sqlite3.Connection,
    work: Callable[[sqlite3.Connection, Write], Outcome],
    write: Write,
    refused: Outcome,
) -> Outcome:
    connection.execute("SAVEPOINT one")
    try:
        outcome = work(connection, write)
    except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, ValueError):
        # A taken key, or a value that no row takes: the other way finds out what is wrong.
        connection.execute("ROLLBACK TO one")
        outcome = refused
    connection.execute("RELEASE one")
    return outcome
