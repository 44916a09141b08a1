"""What `agent-gateway key` does: create, list, revoke."""

from typing import Final

import typer

from agent_gateway.cli.environment import app_named, with_database
from agent_gateway.cli.values import minute, print_table
from agent_gateway.domain.ids import KeyId, canonical_uuid
from agent_gateway.errors import ConfigError
from agent_gateway.openers import secret_key
from agent_gateway.settings import Settings
from agent_gateway.store.db.database import Database
from agent_gateway.store.keys import BOOTSTRAP_LABEL, KeyStore, ListedKey

DAY: Final = 24 * 3600.0


def create(slug: str, label: str, expires: int | None) -> None:
    """Make an API key that expires after so many days, if any, and print it."""
    if label.strip() == BOOTSTRAP_LABEL:
        raise ConfigError(f"the label {BOOTSTRAP_LABEL} is for the key that this variable names")

    async def work(database: Database, settings: Settings) -> tuple[KeyId, str]:
        app = await app_named(database, slug)
        seconds = None if expires is None else expires * DAY
        return await _store(database, settings).make(app.id, label, seconds)

    key_id, key = with_database(work)
    # The key alone on standard output, for scripts.
    typer.echo(f"key {key_id} of {slug}, shown only this once:", err=True)
    typer.echo(key)


def list_keys(slug: str) -> None:
    """Print the keys of an app, including keys that no longer work."""

    async def work(database: Database, settings: Settings) -> list[ListedKey]:
        return await _store(database, settings).all_of((await app_named(database, slug)).id)

    print_table(
        ("ID", "LABEL", "STATE", "CREATED", "EXPIRES", "LAST USED"),
        [
            (
                key.id,
                " ".join(key.label.split()) or "-",
                _state(key),
                minute(key.created_at),
                minute(key.expires_at) if key.expires_at else "never",
                minute(key.last_used_at) if key.last_used_at else "never",
            )
            for key in with_database(work)
        ],
    )


def revoke(key_id: str) -> None:
    """Revoke a key, and say whether it was revoked before."""
    known = canonical_uuid(key_id)

    async def work(database: Database, settings: Settings) -> bool | None:
        return await _store(database, settings).revoke(KeyId(known)) if known else None

    revoked = with_database(work)
    if revoked is None:
        raise ConfigError(f"there is no key {key_id!r}: see `agent-gateway key list APP`")
    typer.echo(f"{known}: revoked" if revoked else f"{known}: was revoked before")


def _state(key: ListedKey) -> str:
    if key.revoked_at:
        return "replaced" if key.replaced else "revoked"
    if key.expired:
        return "expired"
    return "other SECRET_KEY" if key.of_another_secret else "works"


def _store(database: Database, settings: Settings) -> KeyStore:
    return KeyStore(database, secret_key(settings))
