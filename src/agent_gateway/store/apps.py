"""Apps and their immutable versions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import AppConfig, default_app, read_config
from agent_gateway.domain.human_input import FormState
from agent_gateway.domain.ids import AppId, AppVersionId, new_id
from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import (
    api_keys,
    app_versions,
    apps,
    conversations,
    end_users,
    forms,
    is_open,
    turns,
)

DEFAULT_SLUG: Final = "default"
BUILT_IN: Final = tuple(default_app(mode).model_dump_json() for mode in ("chat", "agent-chat", "agent"))


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """The app that an app file was applied to."""

    app_id: AppId
    number: int
    """Of the app's current version."""
    changed: bool
    """True when that version was made just now."""


@dataclass(frozen=True, slots=True)
class ListedApp:
    """An app as an operator lists it."""

    id: AppId
    slug: str
    config: AppConfig
    number: int
    """Of its current version."""
    version_id: AppVersionId
    created_at: datetime
    changed_at: datetime
    """When its current version was made."""
    keys: int
    """How many keys open it now."""
    conversations: int
    """How many it has that are not deleted."""


class AppStore:
    """Reads and writes of apps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, slug: str, config: AppConfig, *, built_in: bool = False) -> ApplyResult:
        """Make this the configuration of an app, with a new version when anything changed.

        A `built_in` configuration only takes the place of another built-in one: what an operator
        has applied stays.
        """
        try:
            return await self._apply(slug, config, built_in)
        except IntegrityError:
            # Another process made the app in the same moment; now there is a row to lock.
            return await self._apply(slug, config, built_in)

    async def _apply(self, slug: str, config: AppConfig, built_in: bool) -> ApplyResult:
        async with self._database.transaction() as connection:
            found = await connection.execute(
                select(apps.c.id, apps.c.version_id)
                .where(apps.c.slug == slug)
                .with_for_update(key_share=True)
            )
            row = found.first()
            app_id = AppId(row.id) if row else AppId(new_id())
            if row is None:
                values = {"id": app_id, "tenant_id": config.tenant_id, "slug": slug}
                await connection.execute(insert(apps).values(created_at=now_plus()), values)
            newest = (await connection.execute(_newest_version(app_id))).first()
            if newest is not None and row is not None and newest.id == row.version_id:
                # Read and written again, so that a release that knows more keys does not count as a change.
                stored = read_config(newest.config).model_dump_json()
                if stored == config.model_dump_json() or (built_in and stored not in BUILT_IN):
                    return ApplyResult(app_id, newest.number, changed=False)
            number = newest.number + 1 if newest else 1
            await _add_version(connection, app_id, number, config)
            return ApplyResult(app_id, number, changed=True)

    async def all(self) -> list[ListedApp]:
        """Every app that was not deleted, by slug."""
        return await self._listed()

    async def find_by_slug(self, slug: str) -> ListedApp | None:
        """The app of this slug."""
        found = await self._listed(apps.c.slug == slug)
        return found[0] if found else None

    async def _listed(self, *which: ColumnElement[bool]) -> list[ListedApp]:
        query = _LISTED.where(*which).order_by(apps.c.slug)
        async with self._database.reading() as session:
            return [
                ListedApp(
                    id=AppId(row.id),
                    slug=row.slug,
                    config=read_config(row.config),
                    number=row.number,
                    version_id=AppVersionId(row.version_id),
                    created_at=row.created_at,
                    changed_at=row.changed_at,
                    keys=row.keys,
                    conversations=row.conversations,
                )
                for row in await session.execute(query)
            ]

    async def delete(self, app_id: AppId) -> int:
        """Delete an app: its keys are revoked, its slug is free, and its turns are asked to stop.

        Its rows are removed later (R18). Returns how many turns were asked.
        """
        async with self._database.transaction() as connection:
            # Renamed so that the slug is free; `~` cannot occur in a slug.
            await connection.execute(
                update(apps)
                .where(apps.c.id == app_id, apps.c.deleted_at.is_(None))
                .values(deleted_at=now_plus(), slug=apps.c.slug + f"~{app_id}")
            )
            await connection.execute(
                update(api_keys)
                .where(api_keys.c.app_id == app_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now_plus())
            )
        # In a transaction of its own: begin and finish lock these rows before the row of the app.
        async with self._database.transaction() as connection:
            mine = select(conversations.c.id).where(conversations.c.app_id == app_id)
            await connection.execute(
                update(forms)
                .where(forms.c.conversation_id.in_(mine), is_open(forms))
                .values(state=FormState.CANCELLED.value, snapshot=None)
            )
            stopped = await connection.execute(
                update(turns)
                .where(
                    turns.c.conversation_id.in_(mine),
                    turns.c.state != TurnState.ENDED.value,
                    turns.c.stop_at.is_(None),
                )
                .values(stop_at=now_plus(), stop_reason="app deleted")
            )
            return stopped.rowcount


def _newest_version(app_id: AppId) -> Select[tuple[object, ...]]:
    versions = select(app_versions).where(app_versions.c.app_id == app_id)
    return versions.order_by(app_versions.c.number.desc()).limit(1)


async def _add_version(connection: AsyncConnection, app_id: AppId, number: int, config: AppConfig) -> None:
    version_id, text = new_id(), config.model_dump_json()
    values = {"id": version_id, "app_id": app_id, "number": number, "config": text}
    await connection.execute(insert(app_versions).values(created_at=now_plus()), values)
    await connection.execute(
        update(apps).where(apps.c.id == app_id).values(version_id=version_id, tenant_id=config.tenant_id)
    )


_OPENING_KEYS: ScalarSelect[int] = (
    select(func.count())
    .where(
        api_keys.c.app_id == apps.c.id,
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now_plus()),
    )
    .scalar_subquery()
)
_CONVERSATIONS: ScalarSelect[int] = (
    # Through the end users: the index of conversations begins with them.
    select(func.count(conversations.c.id))
    .select_from(end_users.join(conversations, conversations.c.end_user_id == end_users.c.id))
    .where(end_users.c.app_id == apps.c.id, conversations.c.deleted_at.is_(None))
    .scalar_subquery()
)
_LISTED = (
    select(
        apps.c.id,
        apps.c.slug,
        apps.c.version_id,
        apps.c.created_at,
        app_versions.c.number,
        app_versions.c.config,
        app_versions.c.created_at.label("changed_at"),
        _OPENING_KEYS.label("keys"),
        _CONVERSATIONS.label("conversations"),
    )
    .join(app_versions, app_versions.c.id == apps.c.version_id)
    .where(apps.c.deleted_at.is_(None))
)
