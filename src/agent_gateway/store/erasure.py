"""Everything of one end user, to be read or to be deleted for good (R18)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, Table, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from agent_gateway.domain.ids import AppId, ConversationId
from agent_gateway.domain.turns import TurnState
from agent_gateway.errors import ObjectMissing
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import END_USER, scope_of
from agent_gateway.store.db.tables import (
    conversations,
    end_users,
    feedbacks,
    files,
    forms,
    idempotency,
    message_files,
    messages,
    outbox,
    snapshots,
    steps,
    turns,
)
from agent_gateway.store.files import FileLocation, FileStore, file_of
from agent_gateway.store.objects import object_key
from agent_gateway.store.removal import LOCK_DELETED, Counts, count_rows, remove_some
from agent_gateway.store.turns.outbox import OutboxKind
from agent_gateway.store.turns.stopping import mark_deleted

StoredRow: TypeAlias = dict[str, object]
"""The values of a row, by column."""

_INTERNAL: Final = frozenset(
    {"owner", "epoch", "adoptions", "lease_until", "fold_version", "checkpoint", "marks", "token", "run_id"}
)
"""Columns about how the gateway works, and secrets: no data of a user."""


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What is still going on about an end user whose conversations were deleted."""

    turns: int
    """That have not ended."""
    sessions: int
    """To be closed at the backend."""

    def __bool__(self) -> bool:
        return bool(self.turns or self.sessions)


class EndUserData:
    """The rows and files of one end user of an app. `find` it."""

    def __init__(
        self, database: Database, files: FileStore, app_id: AppId, external_id: str, end_user_id: str | None
    ) -> None:
        self._database = database
        self._files = files
        self._app_id = app_id
        self._external_id = external_id
        self._end_user_id = end_user_id
        self._mine = conversations.c.end_user_id == end_user_id
        self._keys = (idempotency.c.app_id == app_id) & (idempotency.c.user_id == external_id)

    @classmethod
    async def find(
        cls, database: Database, files: FileStore, app_id: AppId, external_id: str
    ) -> "EndUserData | None":
        """The end user whom the clients of this app name so; None when nothing is stored about them."""
        async with database.reading() as session:
            end_user_id = await session.scalar(END_USER, scope_of(app_id, external_id))
            found = cls(database, files, app_id, external_id, end_user_id)
            keys = await session.scalar(select(idempotency.c.key).where(found._keys).limit(1))
        return found if found._end_user_id or keys else None

    # -- to be read -----------------------------------------------------------------------------------

    async def count(self) -> Counts:
        """How many rows of each kind there are."""
        counts = Counts()
        for conversation_id in await self._ids(conversations.c.id, self._mine):
            async with self._database.reading() as session:
                counts += await count_rows(await session.connection(), [conversation_id])
        counts["files"] = len(await self._ids(files.c.id, files.c.end_user_id == self._end_user_id))
        counts["idempotency keys"] = len(await self._ids(idempotency.c.key, self._keys))
        return counts

    async def profile(self) -> dict[str, list[StoredRow]]:
        """What is stored about the user besides conversations."""
        return {
            "end_user": await self._rows(end_users, end_users.c.id == self._end_user_id),
            "idempotency_keys": await self._rows(idempotency, self._keys),
        }

    async def conversations(self) -> AsyncIterator[tuple[str, dict[str, list[StoredRow]]]]:
        """Each conversation, by its id, with all its rows: also those that were deleted and still exist."""
        for conversation_id in await self._ids(conversations.c.id, self._mine):
            of_this = select(messages.c.id).where(messages.c.conversation_id == conversation_id)
            tables: list[tuple[Table, ColumnElement[bool]]] = [
                (conversations, conversations.c.id == conversation_id),
                (messages, messages.c.conversation_id == conversation_id),
                (turns, turns.c.conversation_id == conversation_id),
                (steps, steps.c.message_id.in_(of_this)),
                (forms, forms.c.conversation_id == conversation_id),
                (feedbacks, feedbacks.c.conversation_id == conversation_id),
                (message_files, message_files.c.message_id.in_(of_this)),
                (snapshots, snapshots.c.conversation_id == conversation_id),
            ]
            yield conversation_id, {table.name: await self._rows(table, which) for table, which in tables}

    async def files(self) -> AsyncIterator[tuple[StoredRow, AsyncIterator[bytes] | None]]:
        """Each file's row, with its bytes; None instead of bytes that are deleted already."""
        mine = select(files).where(files.c.end_user_id == self._end_user_id).order_by(files.c.id)
        async with self._database.reading() as session:
            rows = (await session.execute(mine)).all()
        for row in rows:
            location = FileLocation(file_of(row), object_key(row.created_at, row.id))
            try:
                found = await self._files.read(location, 0, location.file.size)
            except ObjectMissing:
                found = None
            yield row._asdict(), found

    async def _ids(self, column: ColumnElement[str], which: ColumnElement[bool]) -> list[str]:
        async with self._database.reading() as session:
            return list(await session.scalars(select(column).where(which).order_by(column)))

    async def _rows(self, table: Table, which: ColumnElement[bool]) -> list[StoredRow]:
        columns = [column for column in table.c if column.name not in _INTERNAL]
        async with self._database.reading() as session:
            found = await session.execute(select(*columns).where(which).order_by(*table.primary_key))
            return [dict(row) for row in found.mappings()]

    # -- to be deleted --------------------------------------------------------------------------------

    async def hide(self, turn_seconds: float) -> None:
        """Delete all conversations as their user would do it: turns are stopped, sessions are to be closed.

        Files are hidden, too. Those who write meanwhile begin something new, which the next call hides.
        """
        visible = self._mine & conversations.c.deleted_at.is_(None)
        for conversation_id in await self._ids(conversations.c.id, visible):
            async with self._database.transaction() as connection:
                await mark_deleted(connection, ConversationId(conversation_id), turn_seconds)
        async with self._database.transaction() as connection:
            await connection.execute(
                update(files)
                .where(files.c.end_user_id == self._end_user_id, files.c.deleted_at.is_(None))
                .values(deleted_at=now_plus())
            )

    async def open_work(self) -> OpenWork:
        """What other processes still do about the user."""
        mine = turns.c.conversation_id.in_(select(conversations.c.id).where(self._mine))
        unended = select(func.count()).where(mine, turns.c.state != TurnState.ENDED.value)
        closing = (
            select(func.count())
            .join(turns, turns.c.id == outbox.c.turn_id)
            .where(mine, outbox.c.kind == OutboxKind.CLOSE_SESSION.value)
            .select_from(outbox)
        )
        async with self._database.reading() as session:
            return OpenWork(await session.scalar(unended) or 0, await session.scalar(closing) or 0)

    async def delete(self) -> tuple[Counts, bool]:
        """Delete everything that is hidden, whatever still goes on; returns how many of each kind.

        And whether nothing is left: False when the user has begun something new. Raises ObjectsUnavailable.
        """
        counts = Counts()
        try:
            await self._delete_hidden(counts)
        except IntegrityError:
            # Something new refers to what was about to go.
            return counts, False
        return counts, True

    async def _delete_hidden(self, counts: Counts) -> None:
        hidden = self._mine & conversations.c.deleted_at.is_not(None)
        for conversation_id in await self._ids(conversations.c.id, hidden):
            await self._remove(conversation_id, counts)
        if self._end_user_id is not None:
            counts["files"] += await self._files.delete_of(self._end_user_id)
        for kind, gone in (
            ("idempotency keys", delete(idempotency).where(self._keys)),
            ("end users", delete(end_users).where(end_users.c.id == self._end_user_id)),
        ):
            async with self._database.transaction() as connection:
                counts[kind] += (await connection.execute(gone)).rowcount

    async def _remove(self, conversation_id: str, counts: Counts) -> None:
        gone = False
        while not gone:
            async with self._database.transaction() as connection:
                if await connection.scalar(LOCK_DELETED, {"conversation": conversation_id}) is None:
                    # The background job of a process was faster.
                    break
                removed, gone = await remove_some(connection, conversation_id)
                counts.update(removed)
