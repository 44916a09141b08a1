"""Turns as an operator sees them: of all apps and users, where they are and why they failed. Never texts.

What it costs: `live`, `queued` and `stuck` read the small indexes of turns that have not ended. Everything
with `since` reads the turns of that time backwards by their ids, which are ordered by time, until there are
enough.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    exists,
    func,
    literal_column,
    null,
    select,
    union_all,
)

from agent_gateway.causes import Cause
from agent_gateway.domain.ids import TaskId, first_id_of
from agent_gateway.domain.turns import Outcome, TurnState
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus, octets
from agent_gateway.store.db.tables import (
    app_versions,
    apps,
    conversations,
    end_users,
    is_active,
    messages,
    steps,
    turns,
)
from agent_gateway.store.turns.rows import DbRow

Which = Literal["live", "queued", "stuck", "failed", "all"]

LEASES: Final = 2
"""A turn is stuck when it has been without an owner for longer than so many leases."""
CLOCKS_DIFFER: Final = 24 * 3600.0
"""Seconds by which the clock of a process, which makes the ids, may be behind that of the database."""


class Stuck(StrEnum):
    """Why an unended turn does not go on by itself, as far as its row tells."""

    NO_OWNER = "no process has adopted it"
    LEASE = "its lease ran out, and no process has adopted it"
    DEADLINE = "it is past its deadline"
    QUEUE = "it is queued behind nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFilter:
    """Which turns to list; None leaves a condition out."""

    which: Which = "all"
    app: str | None = None
    """Slug."""
    user: str | None = None
    """The client's own identifier."""
    request_id: str | None = None
    since: float | None = None
    """Seconds before now in which they began."""
    limit: int = 50


class ListedTurn(msgspec.Struct, frozen=True):
    """A turn as a line of a list."""

    task_id: str
    state: str
    outcome: str | None
    app: str
    user: str
    conversation_id: str
    owner: str | None
    run_id: str | None
    request_id: str | None
    code: str | None
    cause: Cause | None
    stuck: Stuck | None
    created_at: datetime
    now: datetime
    """When this was read, by the database's clock as all other times."""


class TurnDetails(ListedTurn, frozen=True):
    """Everything of a turn that helps to find out what happened to it, except for texts."""

    app_version: int
    conversation_deleted: bool
    message_id: str
    seq: int
    """Its number in the conversation."""
    traceparent: str | None
    epoch: int
    adoptions: int
    fold_version: int
    lease_until: datetime | None
    deadline_at: datetime
    stop_at: datetime | None
    stop_reason: str | None
    ended_at: datetime | None
    answers_form: bool
    """Whether it carries the answer of a form."""
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    steps: int
    query_bytes: int
    answer_bytes: int


class TurnListing:
    """Reads turns for an operator; changes nothing. `lease_seconds` is that of the processes."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._stuck = _stuck(LEASES * lease_seconds)

    async def turns(self, wanted: TurnFilter) -> list[ListedTurn]:
        """The newest of these turns, newest first."""
        query = self.query(wanted)
        if wanted.since is not None:
            query = query.where(*await began_within(self._database, wanted.since))
        async with self._database.reading() as session:
            return [ListedTurn(**_converted(row)) for row in await session.execute(query)]

    def query(self, wanted: TurnFilter) -> Select[*tuple[Any, ...]]:
        """The statement of the list, but for the time since which the turns began."""
        query = (
            select(*_LISTED, self._stuck.label("stuck"))
            .select_from(OF_USERS)
            .where(*self._which(wanted.which), *_named(wanted))
            .limit(wanted.limit)
        )
        if wanted.since is not None:
            # Read backwards by their ids, until there are enough.
            return query.order_by(turns.c.id.desc())
        # Not by their ids: a database could read all turns so, rather than the few unended ones.
        return query.order_by(turns.c.created_at.desc(), turns.c.id.desc())

    async def details(self, task_id: TaskId) -> TurnDetails | None:
        """A turn, also of a deleted conversation; None when there is no such turn."""
        query = select(*_DETAILS, self._stuck.label("stuck")).select_from(_WITH_MESSAGES)
        async with self._database.reading() as session:
            row = (await session.execute(query.where(turns.c.id == task_id))).first()
        return None if row is None else TurnDetails(**_converted(row))

    def _which(self, which: Which) -> list[ColumnElement[bool]]:
        match which:
            case "live":
                return [is_active(turns), turns.c.lease_until >= now_plus()]
            case "queued":
                return [_IS_QUEUED]
            case "stuck":
                return [turns.c.id.in_(_UNENDED), self._stuck.is_not(None)]
            case "failed":
                return [turns.c.outcome == Outcome.FAILED.value]
            case "all":
                return []


async def began_within(database: Database, seconds: float) -> list[ColumnElement[bool]]:
    """The turns that began so many seconds ago or later, by their ids first: those are in an index."""
    earliest = (await database.now()).timestamp() - seconds
    return [turns.c.id >= first_id_of(earliest - CLOCKS_DIFFER), turns.c.created_at >= now_plus(-seconds)]


def _named(wanted: TurnFilter) -> list[ColumnElement[bool]]:
    given = (
        (apps.c.slug, wanted.app),
        (end_users.c.external_id, wanted.user),
        (turns.c.request_id, wanted.request_id),
    )
    return [column == value for column, value in given if value is not None]


def _stuck(seconds: float) -> ColumnElement[str | None]:
    """Why a turn is stuck, if it is: one of Stuck."""
    long_ago = now_plus(-seconds)
    before = turns.alias("before")
    is_alone = ~exists().where(before.c.conversation_id == turns.c.conversation_id, is_active(before))
    is_queued = turns.c.state == TurnState.QUEUED.value
    return case(
        (turns.c.state == TurnState.ENDED.value, null()),
        # The end of a turn promotes the next one in the same commit.
        (and_(is_queued, turns.c.created_at < long_ago, is_alone), Stuck.QUEUE.value),
        (is_queued, null()),
        # The row does not say when its owner left: a turn that is being handed over is told, too.
        (and_(turns.c.owner.is_(None), turns.c.created_at < long_ago), Stuck.NO_OWNER.value),
        (turns.c.lease_until < long_ago, Stuck.LEASE.value),
        (turns.c.deadline_at < long_ago, Stuck.DEADLINE.value),
        else_=null(),
    )


def _converted(row: DbRow) -> dict[str, Any]:
    """The values of a row, by the names of the struct that it becomes."""
    values = dict(row._asdict())
    cause, stuck = values["cause"], values["stuck"]
    return {
        **values,
        "cause": None if cause is None else msgspec.convert(cause, Cause),
        "stuck": None if stuck is None else Stuck(stuck),
    }


def _of_turns(*names: str) -> list[ColumnElement[Any]]:
    return [turns.c[name] for name in names]


def tokens(name: str) -> ColumnElement[int | None]:
    """The number of that name in the usage of a message; NULL when it is not known."""
    column: ColumnElement[int | None] = messages.c.usage[name].as_integer()
    return column


_IS_QUEUED: Final = turns.c.state == literal_column(f"'{TurnState.QUEUED.value}'")
"""Literal, as in the partial index, so that it is used."""
_UNENDED: Final = union_all(
    # Apart, so that each has its index.
    select(turns.c.id).where(is_active(turns)),
    select(turns.c.id).where(_IS_QUEUED),
)
OF_USERS: Final = (
    turns.join(conversations, conversations.c.id == turns.c.conversation_id)
    .join(apps, apps.c.id == conversations.c.app_id)
    .join(end_users, end_users.c.id == conversations.c.end_user_id)
)
"""Turns with their conversations, apps and users."""
_WITH_MESSAGES: Final = OF_USERS.join(messages, messages.c.id == turns.c.message_id).join(
    app_versions, app_versions.c.id == turns.c.app_version_id
)
_LISTED: Final = (
    turns.c.id.label("task_id"),
    turns.c.error_code.label("code"),
    apps.c.slug.label("app"),
    end_users.c.external_id.label("user"),
    now_plus().label("now"),
    *_of_turns("state", "outcome", "conversation_id", "owner", "run_id", "request_id", "cause", "created_at"),
)
_DETAILS: Final = (
    *_LISTED,
    *_of_turns("message_id", "seq", "traceparent", "epoch", "adoptions", "fold_version", "lease_until"),
    *_of_turns("deadline_at", "stop_at", "stop_reason", "ended_at"),
    app_versions.c.number.label("app_version"),
    conversations.c.deleted_at.is_not(None).label("conversation_deleted"),
    turns.c.form_id.is_not(None).label("answers_form"),
    messages.c.finish_reason,
    *(tokens(name).label(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")),
    select(func.count()).where(steps.c.message_id == turns.c.message_id).scalar_subquery().label("steps"),
    octets(messages.c.query).label("query_bytes"),
    octets(messages.c.answer).label("answer_bytes"),
)
