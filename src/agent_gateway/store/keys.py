"""API keys: made, listed, revoked, and found by their keyed hash. The key itself is never stored."""

import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, case, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import read_config
from agent_gateway.domain.ids import AppId, AppVersionId, KeyId, new_id
from agent_gateway.domain.turns import App
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus, this_minute
from agent_gateway.store.db.tables import api_keys, app_versions, apps, request_counts
from agent_gateway.store.db.upsert import Upsert
from agent_gateway.store.secret_marks import mark_of

BOOTSTRAP_LABEL: Final = "AGENT_GATEWAY_API_KEY"
"""Label of the keys that came from the settings; no other key has it."""
USE_SECONDS: Final = 60.0
"""The time of a key's last use is written at most this often."""


@dataclass(frozen=True, slots=True)
class OpenedKey:
    """A key that was found, and the app it opens in its current version."""

    id: KeyId
    app: App


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key as an operator lists it, without the key itself."""

    id: KeyId
    label: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """Up to a minute late."""
    revoked_at: datetime | None
    replaced: bool
    """Revoked because the settings named another key in its place."""
    expired: bool
    """By the clock of the database."""
    of_another_secret: bool
    """It opens nothing until the secret key is again the one that it was made under."""


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The result of `bootstrap`."""

    replaced: int
    """How many keys that the settings named before were revoked just now."""
    works: bool
    """False when an operator has revoked the key, or when it opens another app."""


class KeyStore:
    """Reads and writes of API keys. `secret` keys the hash by which they are found."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self._database = database
        self._secret = secret
        self._mark = mark_of(secret)

    async def put(self, app_id: AppId, key: str, label: str) -> None:
        """Let this key open the app; a known key stays as it is."""
        async with self._database.transaction() as connection:
            await _lock_app(connection, app_id)
            known = select(api_keys.c.id).where(api_keys.c.hash == self._hash(key))
            if await connection.scalar(known) is None:
                await self._write(connection, app_id, key, label)

    async def bootstrap(self, app_id: AppId, key: str) -> Bootstrapped:
        """Let the key of the settings open the app, and revoke the keys that they named before."""
        named = (api_keys.c.app_id == app_id) & (api_keys.c.label == BOOTSTRAP_LABEL)
        mine = api_keys.c.hash == self._hash(key)
        async with self._database.transaction() as connection:
            await _lock_app(connection, app_id)
            replaced = await connection.execute(
                update(api_keys)
                .where(named, ~mine, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now_plus(), replaced=True)
            )
            await connection.execute(
                update(api_keys)
                .where(named, mine, api_keys.c.replaced)
                .values(revoked_at=None, replaced=False)
            )
            known = await connection.execute(select(api_keys.c.app_id, api_keys.c.revoked_at).where(mine))
            if (row := known.first()) is None:
                await self._write(connection, app_id, key, BOOTSTRAP_LABEL)
            works = row is None or (row.app_id == app_id and row.revoked_at is None)
            return Bootstrapped(replaced.rowcount, works)

    async def make_first(self, app_id: AppId) -> str | None:
        """Make a key if the app never had one under this secret. Its text is returned and stored nowhere."""
        of_this_secret = or_(api_keys.c.secret_mark.is_(None), api_keys.c.secret_mark == self._mark)
        ever = select(api_keys.c.id).where(api_keys.c.app_id == app_id, of_this_secret).limit(1)
        async with self._database.transaction() as connection:
            await _lock_app(connection, app_id)
            if await connection.scalar(ever):
                return None
            key = _new_key()
            await self._write(connection, app_id, key, "made at first start")
            return key

    async def make(self, app_id: AppId, label: str, seconds: float | None = None) -> tuple[KeyId, str]:
        """Make a key that opens the app, for so many seconds or without end; returns its id and its text."""
        key = _new_key()
        async with self._database.transaction() as connection:
            return await self._write(connection, app_id, key, label, seconds), key

    async def make_once(self, slug: str, key_id: KeyId, label: str, seconds: float) -> str | None:
        """Make the key of this id, which opens this app for so many seconds, and return its text.

        None when it was made before, or when there is no such app.
        """
        key = _new_key()
        named = select(apps.c.id).where(apps.c.slug == slug, apps.c.deleted_at.is_(None))
        async with self._database.transaction() as connection:
            app_id = await connection.scalar(named)
            if app_id is None:
                return None
            await _lock_app(connection, app_id)
            if await connection.scalar(select(api_keys.c.id).where(api_keys.c.id == key_id)):
                return None
            await self._write(connection, app_id, key, label, seconds, key_id)
            return key

    async def _write(
        self,
        connection: AsyncConnection,
        app_id: AppId,
        key: str,
        label: str,
        seconds: float | None = None,
        key_id: KeyId | None = None,
    ) -> KeyId:
        key_id = key_id or KeyId(new_id())
        times = {"created_at": now_plus(), "expires_at": None if seconds is None else now_plus(seconds)}
        await connection.execute(
            insert(api_keys).values(
                id=key_id,
                app_id=app_id,
                label=label,
                hash=self._hash(key),
                secret_mark=self._mark,
                **times,
            )
        )
        return key_id

    async def all_of(self, app_id: AppId) -> list[ListedKey]:
        """The keys of an app, oldest first, with the revoked and the expired ones."""
        expired = api_keys.c.expires_at <= now_plus()
        async with self._database.reading() as session:
            rows = await session.execute(
                select(api_keys, expired.label("expired"))
                .where(api_keys.c.app_id == app_id)
                .order_by(api_keys.c.created_at, api_keys.c.id)
            )
            return [
                ListedKey(
                    id=KeyId(row.id),
                    label=row.label,
                    created_at=row.created_at,
                    expires_at=row.expires_at,
                    last_used_at=row.last_used_at,
                    revoked_at=row.revoked_at,
                    replaced=row.replaced,
                    expired=bool(row.expired),
                    of_another_secret=row.secret_mark not in (None, self._mark),
                )
                for row in rows
            ]

    async def count_of_another_secret(self) -> int:
        """How many keys would open an app, but were made under another secret key than this process has."""
        kept = api_keys.c.revoked_at.is_(None) & apps.c.deleted_at.is_(None)
        lives = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now_plus())
        async with self._database.reading() as session:
            found = await session.scalar(
                select(func.count())
                .select_from(api_keys.join(apps, apps.c.id == api_keys.c.app_id))
                .where(api_keys.c.secret_mark != self._mark, kept, lives)
            )
            return found or 0

    async def revoke(self, key_id: KeyId) -> bool | None:
        """Revoke a key. False when it was revoked before, None when there is no such key."""
        async with self._database.transaction() as connection:
            known = api_keys.c.id == key_id
            # A key that was only replaced would work again once the settings name it.
            revoked = await connection.execute(
                update(api_keys)
                .where(known, or_(api_keys.c.revoked_at.is_(None), api_keys.c.replaced))
                .values(revoked_at=now_plus(), replaced=False)
            )
            if revoked.rowcount:
                return True
            return None if await connection.scalar(select(api_keys.c.id).where(known)) is None else False

    async def find(self, key: str) -> OpenedKey | None:
        """The app of this key; None when the key is unknown, revoked or expired, or its app was deleted."""
        async with self._database.reading() as session:
            row = (await session.execute(_OPENED, {"hash": self._hash(key)})).first()
        if row is None:
            return None
        key_id, app_id, version_id, config, slug = row
        app = App(AppId(app_id), AppVersionId(version_id), read_config(config), slug)
        return OpenedKey(KeyId(key_id), app)

    async def write_use(self, key_ids: Collection[KeyId]) -> None:
        """Note that these keys were used just now, unless that was noted less than a minute ago."""
        noted = api_keys.c.last_used_at
        async with self._database.transaction() as connection:
            await connection.execute(
                update(api_keys)
                .where(api_keys.c.id.in_(key_ids), or_(noted.is_(None), noted <= now_plus(-USE_SECONDS)))
                .values(last_used_at=now_plus())
            )

    async def count_request(self, key_id: KeyId) -> int:
        """Count a request with this key; returns how many came in this minute, in all processes."""
        async with self._database.transaction() as connection:
            counted = await _COUNT.run(connection, {"api_key_id": key_id})
            return int(counted.scalar_one())

    def _hash(self, key: str) -> str:
        return hmac.digest(self._secret, key.encode(), "sha256").hex()


def _new_key() -> str:
    return f"app-{secrets.token_urlsafe(32)}"


async def _lock_app(connection: AsyncConnection, app_id: AppId) -> None:
    """Processes that start in the same moment take turns."""
    await connection.execute(select(apps.c.id).where(apps.c.id == app_id).with_for_update(key_share=True))


_OPENED: Final = (
    select(api_keys.c.id, apps.c.id, app_versions.c.id, app_versions.c.config, apps.c.slug)
    .join(apps, apps.c.id == api_keys.c.app_id)
    .join(app_versions, app_versions.c.id == apps.c.version_id)
    .where(
        api_keys.c.hash == bindparam("hash"),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now_plus()),
        apps.c.deleted_at.is_(None),
    )
)
_COUNT: Final = Upsert(
    request_counts,
    ["api_key_id"],
    values={"minute": this_minute(), "requests": 1},
    change=lambda new: {
        "minute": new.minute,
        "requests": case((request_counts.c.minute == new.minute, request_counts.c.requests + 1), else_=1),
    },
    returning=[request_counts.c.requests],
)
"""One row per key: the first request of a minute starts the count anew."""
