"""Stored files: their rows, and with `Objects` their bytes.

Bytes come before the row and go after it, so that a row always has its bytes. What a crash leaves
behind are bytes without a row, or a row that no message uses; `tidy` deletes both after a while. A file
of deleted conversations alone is hidden in that commit; its bytes and then its row go in the next `tidy`.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Row, bindparam, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from agent_gateway.domain.files import InputFile, StoredFile
from agent_gateway.domain.ids import AppId, FileId, MessageId, new_id
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import FileNotFound, GatewayError, ObjectError, ObjectsUnavailable, StoreError
from agent_gateway.filetypes import Description
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import END_USER, owned, scope_of
from agent_gateway.store.db.tables import (
    apps,
    conversations,
    end_users,
    files,
    message_files,
    messages,
)
from agent_gateway.store.db.upsert import Upsert
from agent_gateway.store.objects import Objects, day_prefix, object_key

UNUSED_SECONDS: Final = 24 * 3600
"""How long an upload is kept that no message uses."""
TIDY_BATCH: Final = 500
DISCARD_SECONDS: Final = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes that have arrived and are nobody's file yet: `add` or `discard` them."""

    id: FileId
    created_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it is told to whoever uploaded it."""

    file: StoredFile
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """A file and where its bytes are."""

    file: StoredFile
    key: str


class FileStore:
    """Files of all apps and users; every look by a caller is scoped to app and user (I11)."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects

    async def receive(self, chunks: AsyncIterable[bytes]) -> Received:
        """Store the bytes of a new file; what `chunks` raises passes, and then nothing is left.

        Raises ObjectsUnavailable.
        """
        file_id, now = FileId(new_id()), await self._database.now()
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                yield chunk

        await self._objects.put(object_key(now, file_id), counted())
        return Received(file_id, now, size)

    async def add(self, caller: Caller, what: Description, received: Received) -> Upload:
        """Make what was received a file of this caller."""
        file = StoredFile(received.id, what.name, what.type, what.mime_type, received.size)
        scope = scope_of(caller.app.id, caller.user)
        async with self._database.transaction() as connection:
            row: dict[str, Any] = {"id": new_id(), "app_id": scope["app"], "external_id": scope["user"]}
            await _UPSERT_END_USER.run(connection, row | {"created_at": received.created_at})
            end_user_id = (await connection.execute(END_USER, scope)).scalar_one()
            await connection.execute(
                insert(files), _file_row(file, scope["app"], end_user_id, received.created_at)
            )
        return Upload(file, end_user_id, received.created_at)

    async def discard(self, received: Received) -> None:
        """Delete what was received and is no file. Best effort: `tidy` finds what stays."""
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                await self._database.shielded(
                    self._objects.delete([object_key(received.created_at, received.id)])
                )
        except (ObjectsUnavailable, TimeoutError) as error:
            logger.warning("an upload that was refused stays for now: %s", type(error).__name__)

    async def find(self, app_id: AppId, user: str, file_id: str) -> Kept:
        """A file of this app and user; FileNotFound when there is none."""
        return await self._find(_FILE_OF, scope_of(app_id, user) | {"file": file_id})

    async def find_any(self, file_id: str) -> Kept:
        """A file of anybody, for who brings a signature for exactly it."""
        return await self._find(_FILE, {"file": file_id})

    async def _find(self, query: Any, which: dict[str, str]) -> Kept:
        async with self._database.reading() as session:
            row = (await session.execute(query, which)).first()
        if row is None:
            raise FileNotFound
        return Kept(_stored(row), object_key(row.created_at, row.id))

    async def read(self, kept: Kept, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a file from `start` up to `end`. Raises ObjectMissing, ObjectsUnavailable."""
        return await self._objects.get(kept.key, start, end)

    async def read_all(self, file_id: str) -> bytes:
        """All bytes of a file of anybody. Raises FileNotFound, ObjectMissing, ObjectsUnavailable."""
        kept = await self.find_any(file_id)
        chunks = await self._objects.get(kept.key, 0, kept.file.size)
        return b"".join([chunk async for chunk in chunks])

    async def read_images(self, file_ids: Sequence[str], seconds: float) -> dict[str, bytes]:
        """The bytes of these images that can be read within a bound; an agent gets the others as URLs."""
        images: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(seconds):
                for file_id in file_ids:
                    try:
                        images[file_id] = await self.read_all(file_id)
                    except (GatewayError, ObjectError, StoreError) as error:
                        logger.warning("image %s is sent as a URL: %s", file_id, type(error).__name__)
        except TimeoutError:
            logger.warning("images are sent as URLs: the file store is slow")
        return images

    async def keep(self, message_created_at: int, file_id: FileId, data: bytes) -> None:
        """Store the bytes of a file that an agent made, any number of times (R7).

        Its row is written when its turn ends. Raises ObjectsUnavailable.
        """
        created_at = datetime.fromtimestamp(message_created_at, UTC)
        await self._objects.put_bytes(object_key(created_at, file_id), data)

    async def tidy(self) -> None:
        """Delete what was hidden, old uploads that no message uses, and bytes that have no row."""
        await self._delete_hidden()
        while gone := await self._forget_unused():
            await self._objects.delete(gone)
        # Whatever left bytes without a row did so within a moment; older days have been looked at.
        now = await self._database.now()
        for days in (1, 2):
            await self._delete_orphans(day_prefix(now - timedelta(days=days)), now)

    async def _delete_hidden(self) -> None:
        while True:
            async with self._database.reading() as session:
                rows = (await session.execute(_HIDDEN)).all()
            if not rows:
                return
            await self._objects.delete(object_key(row.created_at, row.id) for row in rows)
            async with self._database.transaction() as connection:
                await connection.execute(delete(files).where(files.c.id.in_([row.id for row in rows])))

    async def _forget_unused(self) -> list[str]:
        async with self._database.transaction() as connection:
            ids = list(await connection.scalars(_UNUSED))
            rows = await connection.execute(
                delete(files).where(files.c.id.in_(ids)).returning(files.c.id, files.c.created_at)
            )
            return [object_key(row.created_at, row.id) for row in rows]

    async def _delete_orphans(self, prefix: str, now: datetime) -> None:
        oldest_allowed = now - timedelta(seconds=UNUSED_SECONDS)
        keys = await self._objects.keys(prefix, before=oldest_allowed)
        for start in range(0, len(keys), TIDY_BATCH):
            batch = {key.rpartition("/")[2]: key for key in keys[start : start + TIDY_BATCH]}
            async with self._database.reading() as session:
                known = set(await session.scalars(select(files.c.id).where(files.c.id.in_(batch))))
            await self._objects.delete(key for file_id, key in batch.items() if file_id not in known)


async def resolve_files(
    connection: AsyncConnection, caller: Caller, given: Sequence[InputFile]
) -> list[InputFile]:
    """The files of a query with all that is known of them; FileNotFound unless they are the caller's.

    They are locked, so that none is hidden before it is attached.
    """
    ids = [file.upload_file_id for file in given if file.transfer_method == "local_file"]
    if not ids:
        return list(given)
    rows = await connection.execute(
        select(files)
        .where(files.c.id.in_(ids), owned(files))
        .order_by(files.c.id)
        .with_for_update(read=True),
        scope_of(caller.app.id, caller.user),
    )
    found = {row.id: row for row in rows}
    if not found.keys() >= set(ids):
        raise FileNotFound
    return [
        msgspec.structs.replace(file, type=row.type, name=row.name, mime_type=row.mime_type, size=row.size)
        if (row := found.get(file.upload_file_id))
        else file
        for file in given
    ]


async def attach_files(
    connection: AsyncConnection, message_id: MessageId, given: Iterable[InputFile]
) -> None:
    """From now on these uploads are used by this message."""
    ids = dict.fromkeys(file.upload_file_id for file in given if file.transfer_method == "local_file")
    if ids:
        rows = [{"message_id": message_id, "file_id": file_id} for file_id in ids]
        await connection.execute(insert(message_files), rows)


async def forget_files(connection: AsyncConnection, conversation_id: str) -> None:
    """The messages of a deleted conversation have no files any more; those that no other has are hidden."""
    # Locked first: the next statement sees who attached one of them meanwhile.
    ids = list(await connection.scalars(_FILES_OF, {"conversation": conversation_id}))
    if not ids:
        return
    await connection.execute(_DETACH, {"conversation": conversation_id})
    await connection.execute(_HIDE, {"ids": ids})


async def write_artifacts(connection: AsyncConnection, message_id: str, made: Sequence[StoredFile]) -> None:
    """The rows of files that an agent made; part of the turn's last write (R7)."""
    linked = [msgspec.to_builtins(file) for file in made if file.url]
    if linked:
        await connection.execute(_LINK, {"message": message_id, "linked": linked})
    made = [file for file in made if not file.url]
    if not made:
        return
    owner = (await connection.execute(_OWNER, {"message": message_id})).one()
    await connection.execute(
        insert(files), [_file_row(file, owner.app_id, owner.end_user_id, owner.created_at) for file in made]
    )
    uses = [{"message_id": message_id, "file_id": file.id, "position": file.position} for file in made]
    await connection.execute(insert(message_files), uses)


async def read_artifacts(
    session: AsyncSession, linked: Mapping[str, Sequence[Mapping[str, object]] | None]
) -> dict[str, list[StoredFile]]:
    """The files that agents made for these messages, in order, by message id.

    `linked` are the `linked_files` of each of the messages.
    """
    made = {
        message_id: msgspec.convert(found, list[StoredFile]) for message_id, found in linked.items() if found
    }
    rows = await session.execute(
        select(files, message_files.c.message_id, message_files.c.position)
        .join(message_files, message_files.c.file_id == files.c.id)
        .where(message_files.c.message_id.in_(linked), message_files.c.position.is_not(None))
        .order_by(message_files.c.message_id, message_files.c.position)
    )
    for row in rows:
        made.setdefault(row.message_id, []).append(_stored(row, row.position))
    for files_of_message in made.values():
        files_of_message.sort(key=lambda file: file.position)
    return made


def _stored(row: Row[Any], position: int = 0) -> StoredFile:
    return StoredFile(FileId(row.id), row.name, row.type, row.mime_type, row.size, position)


def _file_row(file: StoredFile, app_id: str, end_user_id: str, created_at: datetime) -> dict[str, Any]:
    return {
        "id": file.id,
        "app_id": app_id,
        "end_user_id": end_user_id,
        "name": file.name,
        "type": file.type,
        "mime_type": file.mime_type,
        "size": file.size,
        "created_at": created_at,
    }


_UPSERT_END_USER: Final = Upsert(end_users, ["app_id", "external_id"], values={})
_FILE: Final = (
    select(files)
    .join(apps, apps.c.id == files.c.app_id)
    .where(files.c.id == bindparam("file"), files.c.deleted_at.is_(None), apps.c.deleted_at.is_(None))
)
_FILE_OF: Final = _FILE.where(owned(files))
_OWNER: Final = (
    select(conversations.c.app_id, conversations.c.end_user_id, messages.c.created_at)
    .join(messages, messages.c.conversation_id == conversations.c.id)
    .where(messages.c.id == bindparam("message"))
)
_UNUSED: Final = (
    select(files.c.id)
    .where(
        files.c.created_at < now_plus(-UNUSED_SECONDS),
        files.c.deleted_at.is_(None),
        ~exists().where(message_files.c.file_id == files.c.id),
    )
    .order_by(files.c.created_at)
    .limit(TIDY_BATCH)
    .with_for_update(skip_locked=True)
)
_LINK: Final = (
    update(messages).where(messages.c.id == bindparam("message")).values(linked_files=bindparam("linked"))
)
_HIDDEN: Final = (
    select(files.c.id, files.c.created_at)
    .where(files.c.deleted_at.is_not(None))
    .order_by(files.c.deleted_at)
    .limit(TIDY_BATCH)
)
_FILES_OF: Final = (
    select(files.c.id)
    .where(
        files.c.id.in_(
            select(message_files.c.file_id)
            .join(messages, messages.c.id == message_files.c.message_id)
            .where(messages.c.conversation_id == bindparam("conversation"))
        )
    )
    .order_by(files.c.id)
    .with_for_update()
)
_HIDE: Final = (
    update(files)
    .where(
        files.c.id.in_(bindparam("ids", expanding=True)),
        ~exists().where(message_files.c.file_id == files.c.id),
    )
    .values(deleted_at=now_plus())
)
_DETACH: Final = delete(message_files).where(
    message_files.c.message_id.in_(
        select(messages.c.id).where(messages.c.conversation_id == bindparam("conversation"))
    )
)
