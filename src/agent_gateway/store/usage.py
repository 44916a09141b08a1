"""How much apps and users use: conversations and turns as an operator counts them. Never texts.

What it costs: usage reads all turns of its time by their ids, and the message of each (a million: 4 to 7 s).
The list of conversations reads them backwards by their ids until there are enough.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Double, cast, func, select

from agent_gateway.domain.turns import Outcome
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import utc_day
from agent_gateway.store.db.tables import apps, conversations, end_users, messages, turns
from agent_gateway.store.turns.listing import OF_USERS, began_within, tokens

Group = Literal["app", "user", "day"]


class ListedConversation(msgspec.Struct, frozen=True):
    """A conversation as a line of a list."""

    conversation_id: str
    app: str
    user: str
    turns: int
    """How many it has had, those that were removed included."""
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    name: str | UnsetType = UNSET
    """Only when names were asked for: they are made of what users write."""


class UsageCount(msgspec.Struct, frozen=True):
    """The turns of one group, by how they ended, and their tokens and prices as the backend told them."""

    turns: int
    completed: int
    stopped: int
    failed: int
    unended: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    total_price: float
    """In the currency of the backend; the built-in agent has US dollars."""
    app: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    day: str | UnsetType = UNSET
    """In UTC, like 2026-11-30; each of these three only when it is grouped by."""


class UsageStore:
    """Counts for an operator; changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def conversations(
        self, *, app: str | None = None, user: str | None = None, limit: int = 50, names: bool = False
    ) -> list[ListedConversation]:
        """The conversations that began last, newest first, with deleted ones that are still stored."""
        query = (
            select(*_CONVERSATION, *([conversations.c.name] if names else []))
            .join(apps, apps.c.id == conversations.c.app_id)
            .join(end_users, end_users.c.id == conversations.c.end_user_id)
            .where(*_of(app, user))
            .order_by(conversations.c.id.desc())
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [ListedConversation(**row._asdict()) for row in await session.execute(query)]

    async def usage(
        self, by: Sequence[Group], since: float, *, app: str | None = None, user: str | None = None
    ) -> list[UsageCount]:
        """The turns that began in the last `since` seconds, grouped and ordered by these."""
        groups = [_GROUPS[name] for name in by]
        query = (
            select(*(group.label(name) for name, group in zip(by, groups, strict=True)), *_SUMS)
            .select_from(OF_USERS.join(messages, messages.c.id == turns.c.message_id))
            .where(*_of(app, user), *await began_within(self._database, since))
            .group_by(*groups)
            .order_by(*groups)
        )
        async with self._database.reading() as session:
            return [UsageCount(**row._asdict()) for row in await session.execute(query)]


def _of(app: str | None, user: str | None) -> list[ColumnElement[bool]]:
    given = ((apps.c.slug, app), (end_users.c.external_id, user))
    return [column == value for column, value in given if value is not None]


def _ended(outcome: Outcome | None) -> ColumnElement[int]:
    is_one = turns.c.outcome.is_(None) if outcome is None else turns.c.outcome == outcome.value
    return func.count().filter(is_one)


def _sum(name: str) -> ColumnElement[Any]:
    return func.coalesce(func.sum(tokens(name)), 0).label(name)


_CONVERSATION: Final = (
    conversations.c.id.label("conversation_id"),
    apps.c.slug.label("app"),
    end_users.c.external_id.label("user"),
    conversations.c.last_seq.label("turns"),
    conversations.c.created_at,
    conversations.c.updated_at,
    conversations.c.deleted_at,
)
_GROUPS: Final[dict[Group, ColumnElement[str]]] = {
    "app": apps.c.slug,
    "user": end_users.c.external_id,
    "day": utc_day(turns.c.created_at),
}
_SUMS: Final = (
    func.count().label("turns"),
    *(_ended(outcome).label(outcome.value) for outcome in Outcome),
    _ended(None).label("unended"),
    *map(_sum, ("prompt_tokens", "completion_tokens", "total_tokens")),
    func.coalesce(func.sum(cast(messages.c.usage["total_price"].as_string(), Double)), 0.0).label(
        "total_price"
    ),
)
