"""Reading turns: for clients, and for a process that follows the turn of another one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Row, bindparam, select
from sqlmodel import col

from agent_gateway.apps.config import AppMode, read_config
from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import AppId, ConversationId, MessageId, RunId, TaskId
from agent_gateway.domain.turns import AnsweredTurn, Caller, Outcome, Turn, TurnRequest, TurnState, Usage
from agent_gateway.errors import NotFound
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.group_commit import GroupCommit
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import (
    ACTIVE_STATES,
    MessageRow,
    TurnRow,
    app_versions,
    conversations,
    end_users,
    messages,
    turns,
)
from agent_gateway.store.message_files import read_artifacts
from agent_gateway.store.question_forms import forms_of_turn
from agent_gateway.store.turns.chunk_offsets import unpack_in_thread
from agent_gateway.store.turns.idempotency import find_turn_of_key
from agent_gateway.store.turns.rows import OwnerContext, read_answered_turns, read_steps, read_turns


@dataclass(frozen=True, slots=True)
class TurnView:
    """A turn as a reader sees it: what its frames are made of, and whether it has ended."""

    task_id: TaskId
    conversation_id: ConversationId
    message_id: MessageId
    created_at: int
    mode: AppMode
    """Of the app's version that the turn is pinned to (R17)."""
    ended: bool


@dataclass(frozen=True, slots=True)
class TurnStatus:
    """What a follower regularly reads of a turn's row."""

    run_id: RunId | None
    ended: bool
    epoch: int
    elsewhere: bool
    """True while another process owns it."""
    free: bool
    """True while it is active and no process owns it."""


class TurnReader:
    """Reads turns; changes nothing."""

    def __init__(self, database: Database, context: OwnerContext) -> None:
        self._database = database
        self._context = context
        # Thousands of readers may ask at once, when their process has died: those that come during a query
        # share the next one.
        self._view = GroupCommit(self._views, database.shielded, of=lambda _: ())
        self.is_deleted = GroupCommit(self._deleted, database.shielded, of=lambda _: ())
        """Whether a turn's conversation is gone."""

    _LIVING: Final = (
        select(turns.c.id)
        .join(conversations, conversations.c.id == turns.c.conversation_id)
        .where(turns.c.id.in_(bindparam("tasks", expanding=True)), conversations.c.deleted_at.is_(None))
    )

    async def _deleted(self, task_ids: Sequence[TaskId]) -> list[bool]:
        async with self._database.reading() as session:
            living = set(await session.scalars(self._LIVING, {"tasks": list(set(task_ids))}))
        return [task_id not in living for task_id in task_ids]

    _VIEWS: Final = (
        select(
            turns.c.id,
            conversations.c.app_id,
            end_users.c.external_id,
            turns.c.conversation_id,
            turns.c.message_id,
            messages.c.created_at,
            app_versions.c.config,
            turns.c.state,
        )
        .join(messages, messages.c.id == turns.c.message_id)
        .join(conversations, conversations.c.id == turns.c.conversation_id)
        .join(
            end_users,
            (end_users.c.id == conversations.c.end_user_id) & (end_users.c.app_id == conversations.c.app_id),
        )
        .join(app_versions, app_versions.c.id == turns.c.app_version_id)
        .where(turns.c.id.in_(bindparam("tasks", expanding=True)), conversations.c.deleted_at.is_(None))
    )

    async def view(self, app_id: AppId, user: str, task_id: TaskId) -> TurnView | None:
        """A turn of this app and user, or None."""
        row = await self._view((app_id, user, task_id))
        if row is None:
            return None
        return TurnView(
            task_id=task_id,
            conversation_id=ConversationId(row.conversation_id),
            message_id=MessageId(row.message_id),
            created_at=int(row.created_at.timestamp()),
            mode=read_config(row.config).mode,
            ended=row.state == TurnState.ENDED,
        )

    async def _views(self, asked: Sequence[tuple[AppId, str, TaskId]]) -> list[Row[*tuple[Any, ...]] | None]:
        async with self._database.reading() as session:
            rows = await session.execute(self._VIEWS, {"tasks": list({task_id for _, _, task_id in asked})})
        # Everybody asked for a turn of their own app and user, and gets no other (I11).
        found = {(row.app_id, row.external_id, row.id): row for row in rows}
        return [found.get(question) for question in asked]

    async def result(self, task_id: TaskId) -> Result | None:
        """How a turn ended, with all it produced; None while it has not.

        Raises NotFound when its row is gone, with its conversation.
        """
        async with self._database.reading(anyhow=True) as session:
            found = await session.execute(
                select(TurnRow, MessageRow)
                .join(MessageRow, col(MessageRow.id) == col(TurnRow.message_id))
                .where(col(TurnRow.id) == task_id, col(TurnRow.state) == TurnState.ENDED)
            )
            row = found.first()
            if row is None:
                if await session.scalar(select(turns.c.id).where(turns.c.id == task_id)) is None:
                    raise NotFound("Task not found.")
                return None
            turn, message = row
            steps = await read_steps(session, [message.id])
            form, answered = await forms_of_turn(session, turn.id, turn.form_id)
            artifacts = await read_artifacts(session, {message.id: message.linked_files})
            return Result(
                outcome=Outcome(turn.outcome),
                chunks=await unpack_in_thread(message.marks, message.answer),
                text=message.answer,
                steps=tuple(steps.get(message.id, ())),
                end_position=turn.end_position or GATEWAY_END,
                error_code=turn.error_code,
                usage=msgspec.convert(message.usage, Usage) if message.usage else None,
                finish_reason=message.finish_reason,
                form=form,
                answered=answered,
                files=tuple(artifacts.get(message.id, ())),
            )

    async def load(self, task_id: TaskId) -> Turn | None:
        """A turn as its row stands, to follow it."""
        async with self._database.reading(anyhow=True) as session:
            found = await read_turns(await session.connection(), self._context, turns.c.id == task_id)
        return found[0] if found else None

    async def statuses(self, task_ids: list[TaskId]) -> dict[TaskId, TurnStatus]:
        """Where these turns stand: one query for all the turns that a process follows (R6)."""
        async with self._database.reading(anyhow=True) as session:
            rows = await session.execute(
                select(turns.c.id, turns.c.run_id, turns.c.state, turns.c.epoch, turns.c.owner).where(
                    turns.c.id.in_(task_ids)
                )
            )
            return {
                TaskId(row.id): TurnStatus(
                    RunId(row.run_id) if row.run_id else None,
                    ended=row.state == TurnState.ENDED,
                    epoch=row.epoch,
                    elsewhere=row.owner is not None and row.owner != self._context.owner,
                    free=row.owner is None and row.state in ACTIVE_STATES,
                )
                for row in rows
            }

    async def find_by_key(self, caller: Caller, request: TurnRequest) -> TaskId | None:
        """The turn that this request's Idempotency-Key began; IdempotencyConflict for another body."""
        if not request.idempotency_key:
            return None
        async with self._database.reading() as session:
            return await find_turn_of_key(session, caller, request)

    _FIRST_TURN: Final = (
        select(turns.c.id)
        .join(conversations, conversations.c.id == turns.c.conversation_id)
        .where(conversations.c.id == bindparam("conversation"), owned(conversations))
        .order_by(turns.c.seq)
        .limit(1)
    )

    async def first_answered_turn(
        self, caller: Caller, conversation_id: ConversationId
    ) -> AnsweredTurn | None:
        """The first turn of a conversation of this caller; None when there is no such conversation."""
        scope = scope_of(caller.app.id, caller.user) | {"conversation": conversation_id}
        async with self._database.reading() as session:
            task_id = await session.scalar(self._FIRST_TURN, scope)
            if task_id is None:
                return None
            connection = await session.connection()
            found = await read_answered_turns(connection, self._context, turns.c.id == task_id)
        return found.get(TaskId(task_id))
