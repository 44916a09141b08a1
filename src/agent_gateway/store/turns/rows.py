"""Turns and their rows: how a turn is inserted, and how rows become a turn again."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, Row, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlmodel import col

from agent_gateway.apps.config import AppConfig, default_app, read_config_or_none
from agent_gateway.domain.files import InputFile
from agent_gateway.domain.ids import (
    AppId,
    AppVersionId,
    ConversationId,
    FormId,
    MessageId,
    RunId,
    TaskId,
    new_id,
)
from agent_gateway.domain.turns import NO_TRACE, AnsweredTurn, App, Step, Trace, Turn, TurnState
from agent_gateway.json_types import JsonObject
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import (
    StepRow,
    app_versions,
    apps,
    conversations,
    end_users,
    forms,
    messages,
    snapshots,
    turns,
)
from agent_gateway.store.message_files import attach_files
from agent_gateway.store.question_forms import form_columns, form_of
from agent_gateway.store.turns.inputs import all_inputs, asking_messages, refers, stored_inputs

MAX_ADOPTIONS: Final = 5
"""A turn whose owner died this often is ended without being run again (R11): it may be what kills them."""

DbRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row whose columns the statement next to its reader names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OwnerContext:
    """Under which conditions this process owns turns."""

    owner: str
    """A fresh UUID per process start."""
    lease_seconds: float
    turn_seconds: float
    fold_versions: tuple[int, ...]
    """The folds that this release knows; the first is that of new turns (R17)."""


@dataclass(frozen=True, slots=True)
class NewTurn:
    """The first rows of a turn: its message's and its own."""

    task_id: TaskId
    conversation_id: ConversationId
    app_version_id: AppVersionId
    seq: int
    query: str
    inputs: JsonObject
    """What the message stores of them (store/turns/inputs.py)."""
    files: list[InputFile]
    state: TurnState
    owner: str | None
    form_id: FormId | None = None
    inputs_of: MessageId | None = None
    """The message whose inputs this one shares."""
    trace: Trace = NO_TRACE


INSERT_TURN: Final = insert(turns).values(
    epoch=1,
    adoptions=0,
    lease_until=now_plus(bindparam("lease_seconds")),
    deadline_at=now_plus(bindparam("turn_seconds")),
    **{
        name: bindparam(name)
        for name in (
            "id",
            "app_version_id",
            "conversation_id",
            "message_id",
            "seq",
            "state",
            "owner",
            "fold_version",
            "form_id",
            "trace_id",
            "trace_session_id",
            "request_id",
            "traceparent",
            "created_at",
        )
    },
)


async def insert_turn(
    connection: AsyncConnection, context: OwnerContext, new: NewTurn, now: datetime
) -> MessageId:
    """Insert the message and the turn; the caller holds the conversation's lock, which gave it its number."""
    message_id = MessageId(new_id())
    await connection.execute(
        insert(messages),
        {
            "id": message_id,
            "conversation_id": new.conversation_id,
            "seq": new.seq,
            "query": new.query,
            "inputs": new.inputs,
            "inputs_of": new.inputs_of,
            "files": msgspec.to_builtins(new.files),
            "marks": b"",
            "created_at": now,
        },
    )
    await attach_files(connection, message_id, new.files)
    await connection.execute(
        INSERT_TURN,
        {
            "id": new.task_id,
            "app_version_id": new.app_version_id,
            "conversation_id": new.conversation_id,
            "message_id": message_id,
            "seq": new.seq,
            "state": new.state,
            "owner": new.owner,
            "form_id": new.form_id,
            "trace_id": new.trace.id or None,
            "trace_session_id": new.trace.session_id or None,
            "request_id": new.trace.request_id or None,
            "traceparent": new.trace.parent or None,
            "lease_seconds": context.lease_seconds,
            "turn_seconds": context.turn_seconds,
            "fold_version": context.fold_versions[0],
            "created_at": now,
        },
    )
    return message_id


_TURN: Final = (
    select(
        turns,
        messages.c.query,
        stored_inputs().label("inputs"),
        conversations.c.inputs.label("kept_inputs"),
        messages.c.files,
        messages.c.created_at.label("message_created_at"),
        conversations.c.app_id,
        apps.c.slug,
        end_users.c.external_id.label("user"),
        app_versions.c.config,
        snapshots.c.data.label("snapshot"),
        forms.c.snapshot.label("form_snapshot"),
        *form_columns()[1:],
        now_plus().label("now"),
    )
    .join(messages, messages.c.id == turns.c.message_id)
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .join(apps, apps.c.id == conversations.c.app_id)
    .join(end_users, end_users.c.id == conversations.c.end_user_id)
    .join(app_versions, app_versions.c.id == turns.c.app_version_id)
    .outerjoin(asking_messages, refers())
    .outerjoin(snapshots, snapshots.c.conversation_id == turns.c.conversation_id)
    .outerjoin(forms, forms.c.id == turns.c.form_id)
)


async def read_turns(
    connection: AsyncConnection, context: OwnerContext, *which: ColumnElement[bool]
) -> list[Turn]:
    """Turns as their rows stand, with all that running them needs.

    If this release cannot read the configuration of a turn's app, it leaves the turn to another release.
    Once such a turn is late it is returned as not runnable, so that it ends (R17).
    """
    found: list[Turn] = []
    for row in await connection.execute(_TURN.where(*which)):
        if config := read_config_or_none(row.config):
            found.append(_turn(row, context, config))
            continue
        logger.error(
            "this release cannot read the configuration of the turn's app", extra={"task_id": row.id}
        )
        if row.deadline_at < row.now:
            found.append(msgspec.structs.replace(_turn(row, context, default_app()), runnable=False))
    return found


def _turn(row: DbRow, context: OwnerContext, config: AppConfig) -> Turn:
    return Turn(
        task_id=TaskId(row.id),
        conversation_id=ConversationId(row.conversation_id),
        message_id=MessageId(row.message_id),
        created_at=int(row.message_created_at.timestamp()),
        app=App(AppId(row.app_id), AppVersionId(row.app_version_id), config, row.slug),
        user=row.user,
        query=row.query,
        inputs=all_inputs(row.kept_inputs, row.inputs),
        files=msgspec.convert(row.files, list[InputFile]),
        snapshot=row.form_snapshot or row.snapshot,
        epoch=row.epoch,
        fold_version=row.fold_version,
        seconds_left=max(0.0, (row.deadline_at - row.now).total_seconds()),
        state=TurnState(row.state),
        run_id=RunId(row.run_id) if row.run_id else None,
        stop_asked=row.stop_at is not None,
        checkpoint=row.checkpoint,
        runnable=row.adoptions < MAX_ADOPTIONS and row.fold_version in context.fold_versions,
        form=form_of(row) if row.form_token else None,
        adoptions=row.adoptions,
        trace=Trace(
            row.trace_id or "", row.trace_session_id or "", row.request_id or "", row.traceparent or ""
        ),
    )


async def read_answered_turns(
    connection: AsyncConnection, context: OwnerContext, *which: ColumnElement[bool]
) -> dict[TaskId, AnsweredTurn]:
    """Turns with their answers, by task id."""
    found = await read_turns(connection, context, *which)
    ids = [turn.message_id for turn in found]
    rows = await connection.execute(select(messages.c.id, messages.c.answer).where(messages.c.id.in_(ids)))
    answers = {row.id: row.answer for row in rows}
    return {turn.task_id: AnsweredTurn(turn, answers[turn.message_id]) for turn in found}


async def read_steps(session: AsyncSession, message_ids: Sequence[str]) -> dict[str, list[Step]]:
    """The steps of these messages, in order."""
    steps: dict[str, list[Step]] = {}
    rows = await session.scalars(
        select(StepRow)
        .where(col(StepRow.message_id).in_(message_ids))
        .order_by(col(StepRow.message_id), col(StepRow.number))
    )
    for row in rows:
        step = Step(row.number, row.position, row.thought, row.tool, row.tool_input, row.observation)
        steps.setdefault(row.message_id, []).append(step)
    return steps
