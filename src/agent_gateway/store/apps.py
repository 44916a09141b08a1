"""Apps, their immutable versions, and the API keys that open them."""

import hmac
import secrets
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from agent_gateway.app_config import AppConfig, read_config
from agent_gateway.domain import App, AppId, AppVersionId, new_id
from agent_gateway.store.database import Database
from agent_gateway.store.tables import ApiKeyRow, AppRow, AppVersionRow, api_keys, app_versions, apps

DEFAULT_SLUG: Final = "default"


class AppStore:
    """Reads and writes of apps and keys. `secret` keys the hash by which API keys are found."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    async def put_default(self, config: AppConfig) -> AppId:
        """Make this the configuration of the default app: a new version when anything changed."""
        try:
            return await self._put_default(config)
        except IntegrityError:
            # Another process made the app in the same moment; now there is a row to lock.
            return await self._put_default(config)

    async def _put_default(self, config: AppConfig) -> AppId:
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            found = await connection.execute(
                select(apps.c.id, apps.c.version_id).where(apps.c.slug == DEFAULT_SLUG).with_for_update()
            )
            row = found.first()
            app_id = row.id if row else new_id()
            if row is None:
                values = {"id": app_id, "tenant_id": config.tenant_id, "slug": DEFAULT_SLUG}
                await connection.execute(insert(apps), {**values, "created_at": now})
            await _put_version(connection, app_id, row.version_id if row else None, config, now)
            return AppId(app_id)

    async def put_key(self, app_id: AppId, key: str, label: str) -> None:
        """Let this key open the app; nothing happens when it already does."""
        async with self._database.transaction() as connection:
            await _lock_app(connection, app_id)
            known = select(api_keys.c.id).where(api_keys.c.hash == self._hash(key))
            if await connection.scalar(known) is None:
                await self._write_key(connection, app_id, key, label)

    async def make_first_key(self, app_id: AppId) -> str | None:
        """Make a key when the app has none; the returned text is nowhere else."""
        async with self._database.transaction() as connection:
            await _lock_app(connection, app_id)
            if await connection.scalar(select(api_keys.c.id).where(api_keys.c.app_id == app_id).limit(1)):
                return None
            key = f"app-{secrets.token_urlsafe(32)}"
            await self._write_key(connection, app_id, key, "made at first start")
            return key

    async def _write_key(self, connection: AsyncConnection, app_id: AppId, key: str, label: str) -> None:
        values = {"id": new_id(), "app_id": app_id, "label": label, "hash": self._hash(key)}
        await connection.execute(insert(api_keys), {**values, "created_at": datetime.now(UTC)})

    async def find_by_key(self, key: str) -> App | None:
        """The app that this key opens, in its current version."""
        async with self._database.reading() as session:
            found = await session.execute(
                select(col(AppRow.id), col(AppVersionRow.id), col(AppVersionRow.config))
                .join(ApiKeyRow, col(ApiKeyRow.app_id) == col(AppRow.id))
                .join(AppVersionRow, col(AppVersionRow.id) == col(AppRow.version_id))
                .where(col(ApiKeyRow.hash) == self._hash(key), col(ApiKeyRow.revoked_at).is_(None))
            )
            return _app(found.first())

    async def find(self, app_id: AppId) -> App | None:
        """An app in its current version."""
        async with self._database.reading() as session:
            found = await session.execute(
                select(col(AppRow.id), col(AppVersionRow.id), col(AppVersionRow.config))
                .join(AppVersionRow, col(AppVersionRow.id) == col(AppRow.version_id))
                .where(col(AppRow.id) == app_id)
            )
            return _app(found.first())

    def _hash(self, key: str) -> str:
        return hmac.digest(self._secret, key.encode(), "sha256").hex()


def _app(row: tuple[str, str, str] | None) -> App | None:
    if row is None:
        return None
    app_id, version_id, config = row
    return App(AppId(app_id), AppVersionId(version_id), read_config(config))


async def _lock_app(connection: AsyncConnection, app_id: AppId) -> None:
    """Processes that start in the same moment take turns."""
    await connection.execute(select(apps.c.id).where(apps.c.id == app_id).with_for_update())


async def _put_version(
    connection: AsyncConnection, app_id: str, current: str | None, config: AppConfig, now: datetime
) -> None:
    found = await connection.execute(
        select(app_versions)
        .where(app_versions.c.app_id == app_id)
        .order_by(app_versions.c.number.desc())
        .limit(1)
    )
    newest = found.first()
    text = config.model_dump_json()
    if newest is not None and newest.id == current and newest.config == text:
        return
    version_id, number = new_id(), newest.number + 1 if newest else 1
    values = {"id": version_id, "app_id": app_id, "number": number, "config": text, "created_at": now}
    await connection.execute(insert(app_versions), values)
    await connection.execute(update(apps).where(apps.c.id == app_id).values(version_id=version_id))
