"""What `agent-gateway conversations` and `agent-gateway usage` do."""

from typing import Final

import typer

from agent_gateway.cli.environment import app_named, with_database
from agent_gateway.cli.values import duration, minute, print_json, print_table
from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from agent_gateway.store.db.database import Database
from agent_gateway.store.usage import Group, ListedConversation, UsageCount, UsageStore

GROUPS: Final[dict[str, Group]] = {"app": "app", "user": "user", "day": "day"}


def list_conversations(app: str | None, user: str | None, *, limit: int, names: bool, as_json: bool) -> None:
    """Print the newest conversations."""

    async def work(database: Database, _: Settings) -> list[ListedConversation]:
        if app is not None:
            await app_named(database, app)
        return await UsageStore(database).conversations(app=app, user=user, limit=limit, names=names)

    found = with_database(work)
    if as_json:
        print_json(found)
        return
    head = ("CONVERSATION", "APP", "USER", "TURNS", "CREATED", "CHANGED", "DELETED")
    rows = [
        (
            one.conversation_id,
            one.app,
            one.user,
            str(one.turns),
            minute(one.created_at),
            minute(one.updated_at),
            minute(one.deleted_at) if one.deleted_at else "-",
            *([" ".join(str(one.name).split()) or "-"] if names else []),
        )
        for one in found
    ]
    print_table((*head, "NAME") if names else head, rows)


def usage(app: str | None, user: str | None, since: str, by: str, *, as_json: bool) -> None:
    """Print how many turns there were, and their tokens and prices, by these groups."""
    groups = _groups(by)
    seconds = duration(since, "--since")

    async def work(database: Database, _: Settings) -> list[UsageCount]:
        if app is not None:
            await app_named(database, app)
        return await UsageStore(database).usage(groups, seconds, app=app, user=user)

    found = with_database(work)
    if as_json:
        print_json(found)
        return
    counts = ("turns", "completed", "stopped", "failed", "unended")
    counted = (*counts, "prompt_tokens", "completion_tokens", "total_tokens")
    names = (*groups, *counted)
    rows = [(*(str(getattr(one, name)) for name in names), f"{one.total_price:.6f}") for one in found]
    print_table((*(name.upper().replace("_", " ") for name in names), "PRICE"), rows)
    if not found:
        typer.echo(f"note: no turn began in the last {since}, see --since", err=True)


def _groups(by: str) -> list[Group]:
    named = [name.strip() for name in by.split(",")]
    if not all(name in GROUPS for name in named):
        raise ConfigError(f"--by {by!r}: write app, user or day, or some of them with commas")
    return [GROUPS[name] for name in dict.fromkeys(named)]
