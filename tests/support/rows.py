"""A look into the database, past the gateway, on a connection of the test's own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Executable, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import col

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.domain.events import GATEWAY_END
from agent_gateway.domain.ids import AppId, KeyId, new_id
from agent_gateway.store.apps import ApplyResult, AppStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.tables import (
    ACTIVE_STATES,
    AppRow,
    AppVersionRow,
    ConversationRow,
    EndUserRow,
    FileRow,
    IdempotencyRow,
    MessageRow,
    SnapshotRow,
    StepRow,
    TurnRow,
)
from agent_gateway.store.db.url import async_url
from agent_gateway.store.keys import KeyStore
from tests.support.databases import complete
from tests.support.gateway_server import SECRET_KEY, GatewayServer, wait_until

T = TypeVar("T")

APPLICATION = "agent-gateway"
"""The application name of a gateway's connections to Postgres."""


@dataclass(frozen=True)
class Rows:
    """All that is stored about one turn."""

    turn: TurnRow
    message: MessageRow
    steps: list[StepRow]
    snapshot: SnapshotRow | None
    """The conversation's, whichever turn it came from."""


def look(url: str, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Do something in a transaction of its own, on a connection of its own."""

    async def run() -> T:
        engine = create_async_engine(async_url(url), poolclass=NullPool)
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            return await work(session)

    return complete(run())


def rows_of(url: str, task_id: str) -> Rows:
    """The rows of a turn, as they are committed now."""

    async def work(session: AsyncSession) -> Rows:
        found = await session.execute(
            select(TurnRow, MessageRow)
            .join(MessageRow, col(MessageRow.id) == col(TurnRow.message_id))
            .where(col(TurnRow.id) == task_id)
        )
        turn, message = found.one()
        steps = await session.scalars(
            select(StepRow).where(col(StepRow.message_id) == message.id).order_by(col(StepRow.number))
        )
        return Rows(turn, message, list(steps), await session.get(SnapshotRow, turn.conversation_id))

    return look(url, work)


def newest_turn(url: str, conversation_id: str) -> str:
    """The task id of a conversation's newest turn."""

    async def work(session: AsyncSession) -> str:
        found = await session.scalars(
            select(col(TurnRow.id))
            .where(col(TurnRow.conversation_id) == conversation_id)
            .order_by(col(TurnRow.seq).desc())
            .limit(1)
        )
        return found.one()

    return look(url, work)


def counts(url: str) -> dict[str, int]:
    """How many rows the tables of turns hold."""

    async def work(session: AsyncSession) -> dict[str, int]:
        tables = (EndUserRow, ConversationRow, MessageRow, TurnRow, IdempotencyRow)
        return {
            str(table.__tablename__): (await session.scalars(select(func.count()).select_from(table))).one()
            for table in tables
        }

    return look(url, work)


def active_turns(url: str) -> int:
    """How many turns are active, of all apps."""

    async def work(session: AsyncSession) -> int:
        active = col(TurnRow.state).in_(ACTIVE_STATES)
        return (await session.scalars(select(func.count()).select_from(TurnRow).where(active))).one()

    return look(url, work)


def stored_files(url: str) -> set[str]:
    """The ids of all files that have a row."""

    async def work(session: AsyncSession) -> set[str]:
        return set(await session.scalars(select(col(FileRow.id))))

    return look(url, work)


@contextmanager
def locked_conversation(url: str, conversation_id: str) -> Generator[None]:
    """Somebody else holds the lock on a conversation's row while the block lasts (Postgres)."""
    query = select(ConversationRow).where(col(ConversationRow.id) == conversation_id)
    with _locked(url, query.with_for_update()):
        yield


@contextmanager
def no_new_turns(url: str) -> Generator[None]:
    """Statements that write turns wait while the block lasts (Postgres)."""
    with _locked(url, text("LOCK TABLE turns IN SHARE MODE")):
        yield


@contextmanager
def _locked(url: str, statement: Executable) -> Generator[None]:
    locked, release = threading.Event(), threading.Event()

    async def work(session: AsyncSession) -> None:
        await session.execute(statement)
        locked.set()
        release.wait(10)

    holder = threading.Thread(target=look, args=(url, work))
    holder.start()
    try:
        assert locked.wait(5)
        yield
    finally:
        release.set()
        holder.join()


def end_behind_its_back(url: str, task_id: str) -> None:
    """End a turn as a process does that found its lease expired: interrupted, under a new epoch."""

    async def work(session: AsyncSession) -> None:
        await session.execute(
            update(TurnRow)
            .where(col(TurnRow.id) == task_id)
            .values(
                {
                    "state": "ended",
                    "outcome": "failed",
                    "error_code": "turn_interrupted",
                    "end_position": GATEWAY_END,
                    "epoch": col(TurnRow.epoch) + 1,
                    "lease_until": None,
                }
            )
        )

    look(url, work)


def add_app(url: str, key: str, config: AppConfig | None = None) -> None:
    """A second app with a key of its own."""
    app_id = look(url, lambda session: _app(session, config or default_app()))
    with_database(url, lambda database: KeyStore(database, SECRET_KEY.encode()).put(app_id, key, "a test"))


def with_database(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something as the gateway's own store does, on connections of its own."""

    async def run() -> T:
        database = Database(url, pool_size=1)
        try:
            return await work(database)
        finally:
            await database.close()

    return complete(run())


def apply_app(url: str, slug: str, **config: Any) -> ApplyResult:
    """Do as `agent-gateway app apply` does: the plain app, changed like this, under that slug."""
    changed = AppConfig.model_validate({**default_app().model_dump(), **config})
    return with_database(url, lambda database: AppStore(database).apply(slug, changed))


def make_key(url: str, app_id: AppId, seconds: float | None = None) -> tuple[KeyId, str]:
    """Do as `agent-gateway key create` does."""
    return with_database(
        url, lambda database: KeyStore(database, SECRET_KEY.encode()).make(app_id, "a test", seconds)
    )


async def _app(session: AsyncSession, config: AppConfig) -> AppId:
    now: Any = (await session.scalars(select(col(AppRow.created_at)).limit(1))).one()
    row = AppRow(id=new_id(), tenant_id=config.tenant_id, slug=f"app-{new_id()}", created_at=now)
    session.add(row)
    await session.flush()
    version = AppVersionRow(
        id=new_id(), app_id=row.id, number=1, config=config.model_dump_json(), created_at=now
    )
    session.add(version)
    await session.flush()
    await session.execute(update(AppRow).where(col(AppRow.id) == row.id).values(version_id=version.id))
    return AppId(row.id)


def installed(server: GatewayServer) -> GatewayServer:
    """Wait until a gateway that has just started has put its app and key into the database."""
    wait_until(server.gateway.installed.is_set)
    return server


async def never(*_: object) -> None:
    """In place of a duty of the gateway that a test does without."""
    await asyncio.Event().wait()


def terminate_backends(url: str) -> int:
    """End all connections of the gateway, as an operator or a failover does."""
    statement = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = :name"
    )

    async def work(session: AsyncSession) -> int:
        return int((await session.execute(statement, {"name": APPLICATION})).scalar_one())

    return look(url, work)
