"""Apps, their immutable versions, and the API keys that open them."""

import hmac
import secrets
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.app_config import AppConfig
from agent_gateway.domain import App, AppId, AppVersionId, new_id
from agent_gateway.store.database import Database
from agent_gateway.store.tables import ApiKeyRow, AppRow, AppVersionRow

DEFAULT_SLUG: Final = "default"


class AppStore:
    """Reads and writes of apps and keys. `secret` keys the hash by which API keys are found."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    async def put_default(self, config: AppConfig) -> AppId:
        """Make this the configuration of the default app: a new version when anything changed."""
        async with self._database.transaction() as session:
            found = await session.scalars(
                select(AppRow).where(col(AppRow.slug) == DEFAULT_SLUG).with_for_update()
            )
            row = found.first()
            now = datetime.now(UTC)
            if row is None:
                row = AppRow(id=new_id(), tenant_id=config.tenant_id, slug=DEFAULT_SLUG, created_at=now)
                session.add(row)
                await session.flush()
            await _put_version(session, row, config, now)
            return AppId(row.id)

    async def put_key(self, app_id: AppId, key: str, label: str) -> None:
        """Let this key open the app; nothing happens when it already does."""
        async with self._database.transaction() as session:
            known = await session.scalars(
                select(col(ApiKeyRow.id)).where(col(ApiKeyRow.hash) == self._hash(key))
            )
            if known.first() is None:
                await session.execute(
                    insert(ApiKeyRow).values(
                        id=new_id(),
                        app_id=app_id,
                        label=label,
                        hash=self._hash(key),
                        created_at=datetime.now(UTC),
                    )
                )

    async def make_first_key(self, app_id: AppId) -> str | None:
        """Make a key when the app has none; the returned text is nowhere else."""
        async with self._database.reading() as session:
            count = await session.scalars(
                select(func.count()).select_from(ApiKeyRow).where(col(ApiKeyRow.app_id) == app_id)
            )
            if count.one():
                return None
        key = f"app-{secrets.token_urlsafe(32)}"
        await self.put_key(app_id, key, "made at first start")
        return key

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
    return App(AppId(app_id), AppVersionId(version_id), AppConfig.model_validate_json(config))


async def _put_version(session: AsyncSession, row: AppRow, config: AppConfig, now: datetime) -> None:
    found = await session.scalars(
        select(AppVersionRow)
        .where(col(AppVersionRow.app_id) == row.id)
        .order_by(col(AppVersionRow.number).desc())
        .limit(1)
    )
    newest = found.first()
    text = config.model_dump_json()
    if newest is not None and newest.id == row.version_id and newest.config == text:
        return
    version = AppVersionRow(
        id=new_id(), app_id=row.id, number=newest.number + 1 if newest else 1, config=text, created_at=now
    )
    session.add(version)
    await session.flush()
    await session.execute(update(AppRow).where(col(AppRow.id) == row.id).values(version_id=version.id))
