"""What `agent-gateway user` does: export and erase everything of one end user."""

import asyncio
import zipfile
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import typer

from agent_gateway.cli.environment import app_named, read_settings, with_database
from agent_gateway.cli.output import print_counts, private_file
from agent_gateway.errors import ConfigError
from agent_gateway.openers import check_database, open_files
from agent_gateway.settings import Settings
from agent_gateway.store.apps import ListedApp
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.sqlite_file import rewrite
from agent_gateway.store.erasure import EndUserData, OpenWork, StoredRow
from agent_gateway.store.files import FileStore
from agent_gateway.store.removal import Counts

POLL_SECONDS: Final = 0.2
ROUNDS: Final = 5
"""How often what a user begins during their erasure is erased as well."""


def export(slug: str, user: str, output: Path | None) -> None:
    """Write everything of an end user into a ZIP file, which must not exist."""

    async def work(database: Database, settings: Settings) -> tuple[Path, Counts]:
        app, found = await _found(database, settings, slug, user)
        now = await database.now()
        path = output or Path(f"export-{slug}-{now:%Y%m%d-%H%M%S}.zip")
        about: dict[str, object] = {"app": app.slug, "app_id": app.id, "user": user, "exported_at": now}
        with private_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            return path, await _write(archive, about, found)

    path, counts = with_database(work)
    typer.echo(f"{path}: everything of this user of {slug}")
    print_counts(counts)


def erase(slug: str, user: str, wait: float, *, ask: bool) -> None:
    """Delete everything of an end user; running turns may take `wait` seconds to end."""

    async def count(database: Database, settings: Settings) -> Counts:
        return await (await _found(database, settings, slug, user))[1].count()

    if ask:
        held = with_database(count)
        typer.confirm(
            f"Erase this user of {slug} for good: {held['conversations']} conversations with "
            f"{held['messages']} messages, {held['files']} files?",
            abort=True,
        )

    async def work(database: Database, settings: Settings) -> tuple[ListedApp, Counts, OpenWork, datetime]:
        app, found = await _found(database, settings, slug, user)
        counts, left = await _erase(found, settings.turn_timeout_seconds, wait)
        return app, counts, left, await database.now()

    app, counts, left, now = with_database(work)
    rewritten = _rewritten()
    typer.echo(f"erased: {now:%Y-%m-%dT%H:%M:%SZ}")
    typer.echo(f"app:    {app.slug} ({app.id})")
    typer.echo(f"user:   {user}")
    print_counts(counts)
    if left.turns:
        typer.echo(f"note: {left.turns} turns had not ended; what they still write is dropped", err=True)
    if left.sessions:
        typer.echo(
            f"note: {left.sessions} sessions of the agent were not closed: the backend may keep their state",
            err=True,
        )
    if not rewritten:
        typer.echo("note: stop the gateway once: until then the file …-wal may hold old pages", err=True)


async def _erase(found: EndUserData, turn_seconds: float, wait: float) -> tuple[Counts, OpenWork]:
    """Stop and hide everything, wait for what others still do about it, and delete it."""
    end = asyncio.get_running_loop().time() + wait
    await found.hide(turn_seconds)
    while (left := await found.open_work()) and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(POLL_SECONDS)
        await found.hide(turn_seconds)
    counts = Counts()
    for _ in range(ROUNDS):
        deleted, gone = await found.delete()
        counts += deleted
        if gone:
            return counts, left
        await found.hide(turn_seconds)
    raise ConfigError(
        "the user goes on writing: what was there is erased; keep the user out, and run it again"
    )


def _rewritten() -> bool:
    """With SQLite, whether nothing of what was deleted is left in the file."""
    path = check_database(read_settings())
    return path is None or rewrite(path)


async def _found(
    database: Database, settings: Settings, slug: str, user: str
) -> tuple[ListedApp, EndUserData]:
    app = await app_named(database, slug)
    files = FileStore(database, open_files(settings))
    found = await EndUserData.find(database, files, app.id, user)
    if found is None:
        raise ConfigError(f"nothing is stored about this user of the app {slug!r}")
    return app, found


async def _write(archive: zipfile.ZipFile, about: dict[str, object], found: EndUserData) -> Counts:
    """One entry per conversation and file, so that no more than one of them is in memory."""
    about |= await found.profile()
    listed: list[StoredRow] = []
    counts = Counts()
    async for conversation_id, rows in found.conversations():
        archive.writestr(f"conversations/{conversation_id}.json", _json(rows))
        counts.update({table: len(of_table) for table, of_table in rows.items()})
    async for row, chunks in found.files():
        # By its id: the names of uploads are anything.
        name = f"files/{row['id']}"
        listed.append({**row, "path": name if chunks is not None else None})
        counts["files"] += 1
        if chunks is not None:
            await _write_file(archive, name, chunks)
    archive.writestr("user.json", _json({**about, "files": listed}))
    return counts


async def _write_file(archive: zipfile.ZipFile, name: str, chunks: AsyncIterator[bytes]) -> None:
    with archive.open(name, "w", force_zip64=True) as entry:
        async for chunk in chunks:
            entry.write(chunk)


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
