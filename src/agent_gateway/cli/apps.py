"""What `agent-gateway app` does: apply, list, show, export, delete."""

import os
import re
from pathlib import Path

import typer

from agent_gateway.apps.config import SLUG, AppConfig
from agent_gateway.apps.file import load_app_file, unset_variables, write_app_file
from agent_gateway.cli.environment import app_named, read_settings, with_database
from agent_gateway.cli.values import minute, print_table, print_values
from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from agent_gateway.startup_checks import check_app
from agent_gateway.store.apps import DEFAULT_SLUG, ApplyResult, AppStore, ListedApp
from agent_gateway.store.db.database import Database


def apply(file: Path) -> None:
    """Make the app of this file, or a new version of it."""
    config = load_app_file(file, None)
    slug = _slug_of(file, config)
    notes = check_app(read_settings(), config, str(file))

    async def work(database: Database, _: Settings) -> ApplyResult:
        return await AppStore(database).apply(slug, config)

    applied = with_database(work)
    if not applied.changed:
        typer.echo(f"{slug}: unchanged, version {applied.number}")
    elif applied.number > 1:
        typer.echo(f"{slug}: changed, version {applied.number}")
    else:
        typer.echo(f"{slug}: created, version 1; make a key for it with: agent-gateway key create {slug}")
    for name in unset_variables(config, os.environ):
        typer.echo(f"note: {name} is not set here; every gateway process needs it", err=True)
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def list_apps() -> None:
    """Print all apps."""

    async def work(database: Database, _: Settings) -> list[ListedApp]:
        return await AppStore(database).all()

    print_table(
        ("APP", "NAME", "MODE", "VERSION", "CHANGED", "KEYS", "CONVERSATIONS"),
        [
            (
                app.slug,
                " ".join(app.config.name.split()),
                app.config.mode,
                str(app.number),
                minute(app.changed_at),
                str(app.keys),
                str(app.conversations),
            )
            for app in with_database(work)
        ],
    )


def show(slug: str) -> None:
    """Print what an app is, how many keys and conversations it has, and its limits."""
    app = with_database(lambda database, _: app_named(database, slug))
    limits = app.config.limits.model_dump(exclude_none=True)
    lines = {
        "app": app.slug,
        "id": app.id,
        "name": app.config.name,
        "description": app.config.description,
        "mode": app.config.mode,
        "version": f"{app.number} ({app.version_id}), since {minute(app.changed_at)}",
        "created": minute(app.created_at),
        "on change": app.config.on_change,
        "limits": ", ".join(f"{name} {most}" for name, most in limits.items()) or "none",
        "keys": str(app.keys),
        "conversations": str(app.conversations),
    }
    print_values((name, " ".join(value.split())) for name, value in lines.items())


def export(slug: str) -> None:
    """Print the current version of an app as an app file."""
    app = with_database(lambda database, _: app_named(database, slug))
    typer.echo(write_app_file(app.slug, app.config), nl=False)


def delete(slug: str, *, ask: bool) -> None:
    """Delete an app, when somebody confirms it if `ask`."""
    if slug == DEFAULT_SLUG:
        raise ConfigError(f"the app {DEFAULT_SLUG!r} cannot be deleted: every start of the gateway needs it")
    app = with_database(lambda database, _: app_named(database, slug))
    if ask:
        question = f"Delete {slug} with {app.keys} keys and {app.conversations} conversations for good?"
        typer.confirm(question, abort=True)

    async def work(database: Database, _: Settings) -> int:
        return await AppStore(database).delete(app.id)

    stopped = with_database(work)
    typer.echo(f"{slug}: deleted, {stopped} turns stopped")


def _slug_of(file: Path, config: AppConfig) -> str:
    if config.slug:
        return config.slug
    slug = file.stem.lower().replace("_", "-").replace(" ", "-")
    if not re.fullmatch(SLUG, slug):
        raise ConfigError(f"{file}: its name cannot be a slug; set one with the key 'slug'")
    return slug
