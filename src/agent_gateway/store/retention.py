"""Keeps the database small: what is old, deleted or of no use goes, in short transactions (R18).

Any number of processes may do this at once: each skips what another one has locked. A conversation past its
time is first marked as deleted, as its user would do it: its session is closed and its files are hidden. When
that is done, its rows are removed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Delete,
    Table,
    Update,
    and_,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from agent_gateway.apps.config import read_config_or_none
from agent_gateway.domain.ids import ConversationId
from agent_gateway.domain.turns import TurnState
from agent_gateway.errors import ObjectError, StoreError
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus, this_minute
from agent_gateway.store.db.tables import (
    api_keys,
    app_versions,
    apps,
    conversations,
    end_users,
    files,
    idempotency,
    request_counts,
    turns,
)
from agent_gateway.store.files import FileStore
from agent_gateway.store.removal import (
    LOCK_SETTLED,
    QUIET_SECONDS,
    Counts,
    count_rows,
    is_settled,
    remove_some,
)
from agent_gateway.store.runs.removal import count_old_runs, kept_seconds, prune_runs
from agent_gateway.store.turns.idempotency import has_expired
from agent_gateway.store.turns.stopping import mark_deleted

DAY: Final = 24 * 3600.0
PAGE: Final = 2000
"""Rows that one statement of a walk looks at."""
BATCH: Final = 500
"""Small rows that one transaction deletes."""
PAUSE_SECONDS: Final = 0.005
"""Between two transactions, so that the turns' own writes come in between."""
FIRST: Final = "00000000-0000-0000-0000-000000000000"
"""Before every id."""
_ABOUT_TO_GO: Final = "conversations past their time"


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Apps:
    """What the rows say about apps now."""

    deleted: list[str]
    days: dict[str, int]
    """How long conversations of the others are kept, where they are not kept for ever."""


class Retention:
    """Removes what is not to be kept; `days` is for apps that do not say it themselves, 0 means for ever."""

    def __init__(self, database: Database, files: FileStore, days: int, turn_seconds: float) -> None:
        self._database = database
        self._files = files
        self._days = days
        self._turn_seconds = turn_seconds

    async def prune(self) -> Counts:
        """Remove all that can go now; returns how many of each kind. Raises StoreError, ObjectError.

        What one part meets does not keep the others from their work; it is raised in the end.
        """
        known = await self._read_apps()
        counts = Counts()
        failed: StoreError | ObjectError | None = None
        for part in (
            self._prune_small,
            self._prune_conversations,
            self._prune_end_users,
            self._prune_apps,
            self._prune_files,
        ):
            try:
                await part(known, counts)
            except (StoreError, ObjectError) as error:
                logger.warning("%s: %s", part.__name__.strip("_"), error)
                failed = error
        if failed is not None:
            raise failed
        return counts

    async def _prune_small(self, _: _Apps, counts: Counts) -> None:
        counts["idempotency keys"] += await self._delete(idempotency.c.key, has_expired())
        await self._delete(request_counts.c.api_key_id, request_counts.c.minute < this_minute() - 24 * 60)
        counts["runs"] += await prune_runs(self._database, kept_seconds(self._turn_seconds))

    async def _prune_conversations(self, known: _Apps, counts: Counts) -> None:
        which = self._past(known)
        async for page in self._walk(conversations, which):
            for conversation_id in page:
                counts[_ABOUT_TO_GO] += await self._mark(conversation_id, which)
        async for page in self._walk(conversations, is_settled()):
            for conversation_id in page:
                counts.update(await self._remove(conversation_id))

    async def _prune_end_users(self, _: _Apps, counts: Counts) -> None:
        async for page in self._walk(end_users, _is_unused()):
            counts["end users"] += await self._remove_end_users(page)

    async def _prune_apps(self, known: _Apps, counts: Counts) -> None:
        for app_id in known.deleted:
            counts.update(await self._remove_app(app_id))

    async def _prune_files(self, _: _Apps, counts: Counts) -> None:
        # Last: the parts before hide the files of what they remove.
        counts["files"] += await self._files.tidy()

    async def preview(self) -> Counts:
        """How many of each kind would go, now or once sessions are closed; changes nothing."""
        known = await self._read_apps()
        counts = Counts()
        past = self._past(known)
        async for page in self._walk(conversations, past):
            counts[_ABOUT_TO_GO] += len(page)
        async for page in self._walk(conversations, or_(past, conversations.c.deleted_at.is_not(None))):
            async with self._database.reading() as session:
                counts += await count_rows(await session.connection(), page)
        async for page in self._walk(end_users, _is_unused()):
            counts["end users"] += len(page)
        counts["apps"] += len(known.deleted)
        counts["files"] += await self._files.count_untidy()
        counts["runs"] += await count_old_runs(self._database, kept_seconds(self._turn_seconds))
        async with self._database.reading() as session:
            counts["API keys"] += (
                await session.scalar(select(func.count()).where(api_keys.c.app_id.in_(known.deleted))) or 0
            )
            counts["idempotency keys"] += (
                await session.scalar(select(func.count()).select_from(idempotency).where(has_expired())) or 0
            )
        return counts

    async def waiting(self) -> int:
        """How many deleted conversations wait: for the end of a turn, a session to be closed, or readers."""
        counted = select(func.count()).where(conversations.c.deleted_at.is_not(None))
        async with self._database.reading() as session:
            return await session.scalar(counted) or 0

    async def _read_apps(self) -> _Apps:
        current = select(apps.c.id, app_versions.c.config).join(
            app_versions, app_versions.c.id == apps.c.version_id
        )
        long_gone = select(apps.c.id).where(apps.c.deleted_at < now_plus(-QUIET_SECONDS))
        async with self._database.reading() as session:
            rows = (await session.execute(current.where(apps.c.deleted_at.is_(None)))).all()
            deleted = list(await session.scalars(long_gone))
        days: dict[str, int] = {}
        for row in rows:
            config = read_config_or_none(row.config)
            # What this release cannot read is kept: another release knows how long.
            if config is not None and (kept := self._kept(config.retention_days)):
                days[row.id] = kept
        return _Apps(deleted, days)

    def _kept(self, days: int | None) -> int:
        return self._days if days is None else days

    def _past(self, known: _Apps) -> ColumnElement[bool]:
        """Conversations to be marked as deleted: untouched for too long, or of a deleted app."""
        ids_of: dict[int, list[str]] = {}
        for app_id, days in known.days.items():
            ids_of.setdefault(days, []).append(app_id)
        untouched = (
            and_(conversations.c.app_id.in_(ids), conversations.c.updated_at < now_plus(-days * DAY))
            for days, ids in ids_of.items()
        )
        unended = exists().where(
            turns.c.conversation_id == conversations.c.id, turns.c.state != TurnState.ENDED.value
        )
        of_deleted = conversations.c.app_id.in_(known.deleted) if known.deleted else false()
        past = or_(and_(or_(false(), *untouched), ~unended), of_deleted)
        return conversations.c.deleted_at.is_(None) & past

    async def _walk(self, table: Table, which: ColumnElement[bool]) -> AsyncIterator[list[str]]:
        """The ids of all these rows, in pages: each statement looks at PAGE rows of the table, by key."""
        after: str | None = FIRST
        while after is not None:
            rest = table.c.id > after
            async with self._database.reading() as session:
                last = await session.scalar(
                    select(table.c.id).where(rest).order_by(table.c.id).offset(PAGE - 1).limit(1)
                )
                bounded = rest if last is None else rest & (table.c.id <= last)
                page = list(await session.scalars(select(table.c.id).where(bounded, which)))
            if page:
                yield page
            after = last
            await asyncio.sleep(PAUSE_SECONDS)

    async def _mark(self, conversation_id: str, which: ColumnElement[bool]) -> int:
        await asyncio.sleep(PAUSE_SECONDS)
        locked = (
            select(conversations.c.id)
            .where(conversations.c.id == conversation_id, which)
            .with_for_update(skip_locked=True)
        )
        async with self._database.transaction() as connection:
            # Once more when it is locked: a turn may have begun in between.
            for _ in range(2):
                if await connection.scalar(locked) is None:
                    return 0
            await mark_deleted(connection, ConversationId(conversation_id), self._turn_seconds)
        return 1

    async def _remove(self, conversation_id: str) -> Counts:
        counts, gone = Counts(), False
        while not gone:
            await asyncio.sleep(PAUSE_SECONDS)
            async with self._database.transaction() as connection:
                if await connection.scalar(LOCK_SETTLED, {"conversation": conversation_id}) is None:
                    break
                removed, gone = await remove_some(connection, conversation_id)
                counts += removed
        return counts

    async def _remove_app(self, app_id: str) -> Counts:
        """Delete what a deleted app leaves, once nothing refers to it: each part in its own transaction."""
        hiding = update(files).values(deleted_at=now_plus())
        await self._write(hiding, files.c.id, (files.c.app_id == app_id) & files.c.deleted_at.is_(None))
        mine = select(api_keys.c.id).where(api_keys.c.app_id == app_id)
        counts = Counts()
        async with self._database.reading() as session:
            for used in (conversations, files):
                if await session.scalar(select(used.c.id).where(used.c.app_id == app_id).limit(1)):
                    return counts
            versions = list(
                await session.scalars(select(app_versions.c.id).where(app_versions.c.app_id == app_id))
            )
        try:
            await self._delete(idempotency.c.key, idempotency.c.app_id == app_id)
            counts["end users"] += await self._delete(end_users.c.id, end_users.c.app_id == app_id)
            await self._delete(request_counts.c.api_key_id, request_counts.c.api_key_id.in_(mine))
            counts["API keys"] += await self._delete(api_keys.c.id, api_keys.c.app_id == app_id)
            for version_id in versions:
                # One at a time: the database looks through all turns for one that refers to it.
                await self._delete(app_versions.c.id, app_versions.c.id == version_id)
            counts["apps"] += await self._delete(apps.c.id, apps.c.id == app_id)
        except IntegrityError:
            # A turn began at a process that still knew the app: the next time.
            pass
        return counts

    async def _delete(self, key: ColumnElement[str], which: ColumnElement[bool]) -> int:
        return await self._write(delete(key.table), key, which)

    async def _write(
        self, change: Delete | Update, key: ColumnElement[str], which: ColumnElement[bool]
    ) -> int:
        """Delete or change these rows, BATCH at a time, but for those that others have locked."""
        some = key.in_(select(key).where(which).limit(BATCH).with_for_update(skip_locked=True))
        written = 0
        while True:
            async with self._database.transaction() as connection:
                done = (await connection.execute(change.where(some, which))).rowcount
            written += done
            if not done:
                return written
            await asyncio.sleep(PAUSE_SECONDS)

    async def _remove_end_users(self, ids: Collection[str]) -> int:
        async with self._database.transaction() as connection:
            # Who is locked now cannot get a conversation or a file; who just got one is locked by that.
            locked = await connection.scalars(
                select(end_users.c.id)
                .where(end_users.c.id.in_(ids), _is_unused())
                .with_for_update(skip_locked=True)
            )
            gone = delete(end_users).where(end_users.c.id.in_(list(locked)), _is_unused())
            return (await connection.execute(gone)).rowcount


def _is_unused() -> ColumnElement[bool]:
    """The end user has nothing, and did not come just now to get something."""
    return and_(
        end_users.c.created_at < now_plus(-DAY),
        ~exists().where(
            conversations.c.end_user_id == end_users.c.id, conversations.c.app_id == end_users.c.app_id
        ),
        ~exists().where(files.c.end_user_id == end_users.c.id),
    )
