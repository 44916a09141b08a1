"""Stored files: their rows, and with `Objects` their bytes.

Bytes come before the row and go after it, so that a row always has its bytes. What a crash leaves
behind are bytes without a row, or a row that no message uses; `tidy` deletes both after a while. A file
that only deleted conversations use is hidden in the commit of the deletion; the next `tidy` deletes its
bytes and then its row.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, delete, exists, func, insert, select

from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.ids import AppId, FileId, new_id
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import FileNotFound, GatewayError, ObjectError, ObjectsUnavailable, StoreError
from agent_gateway.filetypes import Description
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import END_USER, owned, scope_of
from agent_gateway.store.db.tables import (
    apps,
    end_users,
    files,
    message_files,
)
from agent_gateway.store.db.upsert import Upsert
from agent_gateway.store.objects import Objects, day_prefix, object_key

UNUSED_SECONDS: Final = 24 * 3600
"""After which an upload that no message uses is deleted."""
TIDY_BATCH: Final = 500
DISCARD_SECONDS: Final = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StagedUpload:
    """The bytes of an upload before they are anybody's file: `add` or `discard` them."""

    id: FileId
    created_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as the response to its upload shows it."""

    file: StoredFile
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A file and where its bytes are."""

    file: StoredFile
    key: str


_UPSERT_END_USER: Final = Upsert(end_users, ["app_id", "external_id"], values={})
_FILE: Final = (
    select(files)
    .join(apps, apps.c.id == files.c.app_id)
    .where(files.c.id == bindparam("file"), files.c.deleted_at.is_(None), apps.c.deleted_at.is_(None))
)
_FILE_OF: Final = _FILE.where(owned(files))


def _is_unused() -> ColumnElement[bool]:
    return and_(
        files.c.created_at < now_plus(-UNUSED_SECONDS),
        files.c.deleted_at.is_(None),
        ~exists().where(message_files.c.file_id == files.c.id),
    )


_UNUSED: Final = (
    select(files.c.id)
    .where(_is_unused())
    .order_by(files.c.created_at)
    .limit(TIDY_BATCH)
    .with_for_update(skip_locked=True)
)
_FILES: Final = select(files.c.id, files.c.created_at)
_HIDDEN: Final = _FILES.where(files.c.deleted_at.is_not(None)).order_by(files.c.deleted_at)


class FileStore:
    """Files of all apps and users; a caller finds only files of its app and user (I11)."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects

    async def receive(self, chunks: AsyncIterable[bytes]) -> StagedUpload:
        """Store the bytes of a new file. If `chunks` raises, that error passes and nothing is left.

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
        return StagedUpload(file_id, now, size)

    async def add(self, caller: Caller, what: Description, staged: StagedUpload) -> Upload:
        """Make these bytes a file of this caller."""
        file = StoredFile(staged.id, what.name, what.type, what.mime_type, staged.size)
        scope = scope_of(caller.app.id, caller.user)
        async with self._database.transaction() as connection:
            row: dict[str, object] = {"id": new_id(), "app_id": scope["app"], "external_id": scope["user"]}
            await _UPSERT_END_USER.run(connection, row | {"created_at": staged.created_at})
            end_user_id = (await connection.execute(END_USER, scope)).scalar_one()
            await connection.execute(
                insert(files), file_values(file, scope["app"], end_user_id, staged.created_at)
            )
        return Upload(file, end_user_id, staged.created_at)

    async def discard(self, staged: StagedUpload) -> None:
        """Delete the bytes of a refused upload. Best effort: `tidy` finds what stays."""
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                await self._database.shielded(
                    self._objects.delete([object_key(staged.created_at, staged.id)])
                )
        except (ObjectsUnavailable, TimeoutError) as error:
            logger.warning("an upload that was refused stays for now: %s", type(error).__name__)

    async def find(self, app_id: AppId, user: str, file_id: str) -> FileLocation:
        """A file of this app and user; FileNotFound when there is none."""
        return await self._find(_FILE_OF, scope_of(app_id, user) | {"file": file_id})

    async def find_any(self, file_id: str) -> FileLocation:
        """The file with this id, whoever owns it: for a request with a signature for exactly this file."""
        return await self._find(_FILE, {"file": file_id})

    async def _find(self, query: Select[Any], which: dict[str, str]) -> FileLocation:
        async with self._database.reading() as session:
            row = (await session.execute(query, which)).first()
        if row is None:
            raise FileNotFound
        return FileLocation(file_of(row), object_key(row.created_at, row.id))

    async def read(self, location: FileLocation, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of a file from `start` up to `end`. Raises ObjectMissing, ObjectsUnavailable."""
        return await self._objects.get(location.key, start, end)

    async def read_all(self, file_id: str) -> bytes:
        """All bytes of this file, whoever owns it. Raises FileNotFound, ObjectMissing, ObjectsUnavailable."""
        location = await self.find_any(file_id)
        chunks = await self._objects.get(location.key, 0, location.file.size)
        return b"".join([chunk async for chunk in chunks])

    async def read_contents(self, file_ids: Sequence[str], seconds: float) -> dict[str, bytes]:
        """The bytes of these files that can be read within a bound; an agent gets the others as URLs."""
        contents: dict[str, bytes] = {}
        if not file_ids:
            return contents
        try:
            async with asyncio.timeout(seconds):
                for file_id in file_ids:
                    try:
                        contents[file_id] = await self.read_all(file_id)
                    except (GatewayError, ObjectError, StoreError) as error:
                        logger.warning("file %s is sent as a URL: %s", file_id, type(error).__name__)
        except TimeoutError:
            logger.warning("files are sent as URLs: the file store is slow")
        return contents

    async def put_artifact(self, message_created_at: int, file_id: FileId, data: bytes) -> None:
        """Store the bytes of a file that an agent made; may be repeated (R7).

        Its row is written when its turn ends. Raises ObjectsUnavailable.
        """
        created_at = datetime.fromtimestamp(message_created_at, UTC)
        await self._objects.put_bytes(object_key(created_at, file_id), data)

    async def discard_artifacts(self, message_created_at: int, made: Sequence[FileId]) -> None:
        """Delete the bytes of files that an agent made and that will have no row.

        Raises ObjectsUnavailable.
        """
        created_at = datetime.fromtimestamp(message_created_at, UTC)
        await self._objects.delete([object_key(created_at, file_id) for file_id in made])

    async def tidy(self) -> int:
        """Delete hidden files, old uploads that no message uses, and bytes that have no row.

        Returns how many files were deleted. Raises ObjectsUnavailable.
        """
        deleted = await self._delete_all(_HIDDEN)
        while gone := await self._forget_unused():
            await self._objects.delete(gone)
            deleted += len(gone)
        # Bytes lose their row only in the moment of a crash, so earlier days have been checked before.
        now = await self._database.now()
        for days in (1, 2):
            await self._delete_orphans(day_prefix(now - timedelta(days=days)), now)
        return deleted

    async def count_untidy(self) -> int:
        """How many files `tidy` would delete."""
        unused = select(func.count()).where(_is_unused())
        hidden = select(func.count()).where(files.c.deleted_at.is_not(None))
        async with self._database.reading() as session:
            return (await session.scalar(unused) or 0) + (await session.scalar(hidden) or 0)

    async def delete_of(self, end_user_id: str) -> int:
        """Delete all files of an end user, which no message uses any more; returns how many there were.

        Raises ObjectsUnavailable, and IntegrityError when a message uses one.
        """
        return await self._delete_all(_FILES.where(files.c.end_user_id == end_user_id))

    async def _delete_all(self, which: Select[*tuple[Any, ...]]) -> int:
        """Delete these files, a batch at a time: their bytes, and then their rows."""
        deleted = 0
        while True:
            async with self._database.reading() as session:
                rows = (await session.execute(which.limit(TIDY_BATCH))).all()
            if not rows:
                return deleted
            await self._objects.delete(object_key(row.created_at, row.id) for row in rows)
            async with self._database.transaction() as connection:
                gone = delete(files).where(files.c.id.in_([row.id for row in rows]))
                deleted += (await connection.execute(gone)).rowcount

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


def file_of(row: Row[Any], position: int = 0) -> StoredFile:
    """The file in this row of `files`."""
    return StoredFile(FileId(row.id), row.name, row.type, row.mime_type, row.size, position)


def file_values(file: StoredFile, app_id: str, end_user_id: str, created_at: datetime) -> dict[str, object]:
    """The row of this file."""
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
