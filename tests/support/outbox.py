"""Shared by tests of auxiliary runs: an app that has them, and a look at the outbox."""

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.apps.config import AppConfig
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import ConversationRow, OutboxRow, SnapshotRow
from tests.support.fakes.script import Script, ScriptSource, echo
from tests.support.fakes.session import query_of
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.json_type import Json
from tests.support.rows import look

NAME, SUGGEST = "Name this: ", "Suggest after: "


def small(prompt: str) -> Json:
    """A composition that says this and what was said in the turn."""
    layers: list[Json] = [
        {"name": "prompt", "type": "plain.prompt", "config": {"user": f"{prompt}${{query}} => ${{answer}}"}},
        {"name": "llm", "type": "vendor.plugin.llm", "config": {"model": "small"}},
    ]
    return {"layers": layers}


def helpful_app(**config: Any) -> AppConfig:
    """An app that names conversations and suggests questions."""
    given = {
        "name": "Helpful",
        "naming": {"composition": small(NAME)},
        "suggested_questions_after_answer": {"enabled": True, "composition": small(SUGGEST)},
        **config,
    }
    return AppConfig.model_validate(given)


def told_apart(*, name: ScriptSource = echo, suggest: ScriptSource = echo) -> Callable[[Json], Script]:
    """A script for turns, names and suggestions, by what they are asked."""

    def choose(body: Json) -> Script:
        asked = query_of(body)
        source = name if asked.startswith(NAME) else suggest if asked.startswith(SUGGEST) else echo
        return source if isinstance(source, Script) else source(body)

    return choose


def outbox_entries(url: str) -> list[OutboxRow]:
    """The entries of the outbox."""

    async def work(session: AsyncSession) -> list[OutboxRow]:
        return list(await session.scalars(select(OutboxRow)))

    return look(url, work)


def all_done(url: str) -> None:
    """Wait until the outbox is empty."""
    wait_until(lambda: not outbox_entries(url))


def due_now(url: str) -> None:
    """Make all entries due, as if their claims had expired."""

    change(url, next_try_at=now_plus(-1))


def change(url: str, **values: Any) -> None:
    """Change all entries behind everybody's back."""

    async def work(session: AsyncSession) -> None:
        await session.execute(update(OutboxRow).values(**values))

    look(url, work)


def empty_outbox(url: str) -> None:
    """Empty the outbox."""

    async def work(session: AsyncSession) -> None:
        await session.execute(delete(OutboxRow))

    look(url, work)


def is_cleaning_up(server: GatewayServer) -> bool:
    """True while something is done about turns that have ended."""
    names = {task.get_name() for task in asyncio.all_tasks(server._loop)}
    names -= {f"turn-{live.turn.task_id}" for live in server.gateway.live.followed()}
    return any(name.startswith(("turn-", "entry-", "cancel-")) for name in names)


def conversation_row(url: str, conversation_id: str) -> ConversationRow:
    """A conversation's row, deleted or not."""

    async def work(session: AsyncSession) -> ConversationRow:
        return await session.get_one(ConversationRow, conversation_id)

    return look(url, work)


def snapshot_row(url: str, conversation_id: str) -> SnapshotRow | None:
    """The session that a conversation holds."""

    async def work(session: AsyncSession) -> SnapshotRow | None:
        return await session.get(SnapshotRow, conversation_id)

    return look(url, work)


def closes(body: Json) -> bool:
    """True for the request of a clean-up run."""
    return bool(body.get("session_snapshot")) and body["on_exit"]["default"] == "delete"
