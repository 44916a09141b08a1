"""Which gateway `agent-gateway chat` talks to, and with which key."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from agent_gateway.domain.ids import KeyId
from agent_gateway.errors import ConfigError
from agent_gateway.settings import PREFIX, Settings

LABEL: Final = "agent-gateway chat"
KEY_SECONDS: Final = 24 * 3600.0
"""How long a key works at most that is not revoked because the chat was killed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say."""

    url: str | None
    key: str | None = field(repr=False)
    app: str | None
    """Slug of the app for which a key is made."""


@contextmanager
def access(wanted: Wanted) -> Generator[tuple[str, str]]:
    """The URL and the key. A key that is made for an app is revoked at the end. Raises ConfigError."""
    if wanted.app is not None and wanted.key is not None:
        raise ConfigError("--app makes a key of its own: leave out --key")
    url, key = wanted.url, wanted.key or os.environ.get(f"{PREFIX}API_KEY", "").strip()
    if url is None:
        settings = Settings.read()
        # The key of the settings opens the gateway of the settings, and is sent to no other.
        url, key = settings.local_url, key or settings.api_key.get_secret_value()
    if wanted.app is not None:
        with _key_of(wanted.app) as made:
            yield url, made
    elif key:
        yield url, key
    else:
        raise ConfigError("no key: give --key, or, in the gateway's folder, --app with the slug of an app")


@contextmanager
def _key_of(slug: str) -> Generator[str]:
    """A key of an app, made through the database of the settings as `agent-gateway key create` does."""
    from agent_gateway.cli.environment import app_named, with_database
    from agent_gateway.openers import secret_key
    from agent_gateway.store.db.database import Database
    from agent_gateway.store.keys import KeyStore

    async def make(database: Database, settings: Settings) -> tuple[KeyId, str]:
        app = await app_named(database, slug)
        return await KeyStore(database, secret_key(settings)).make(app.id, LABEL, KEY_SECONDS)

    async def revoke(database: Database, settings: Settings) -> None:
        await KeyStore(database, secret_key(settings)).revoke(key_id)

    key_id, key = with_database(make)
    try:
        yield key
    finally:
        with_database(revoke)
