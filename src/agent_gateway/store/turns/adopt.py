"""Adoption: taking over turns that nobody holds (R4, R10, R11), and reading turns to follow them."""

import logging
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from sqlalchemy import ColumnElement, Row, bindparam, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import AppConfig, default_app, read_config
from agent_gateway.domain.files import InputFile
from agent_gateway.domain.ids import AppId, AppVersionId, ConversationId, MessageId, RunId, TaskId
from agent_gateway.domain.turns import App, Trace, Turn, TurnState
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.tables import (
    ACTIVE_STATES,
    app_versions,
    conversations,
    end_users,
    forms,
    is_active,
    messages,
    snapshots,
    turns,
)
from agent_gateway.store.question_forms import form_columns, form_of
from agent_gateway.store.turns.inputs import all_inputs, asking_messages, refers, stored_inputs
from agent_gateway.store.turns.new_turn import OwnerContext

BATCH: Final = 50
"""Turns taken over in one transaction."""
MAX_ADOPTIONS: Final = 5
"""A turn whose owner died this often is ended without being run again (R11)."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TurnStatus:
    """What a follower needs to know of a turn's row from time to time."""

    run_id: RunId | None
    ended: bool
    epoch: int
    elsewhere: bool
    """True while another process owns it."""
    free: bool
    """True while it is active and nobody owns it."""


async def adopt(
    database: Database, terms: OwnerContext, *, expired: bool, everyone: bool = False
) -> list[Turn]:
    """Take over up to BATCH turns without owner, and with `expired` those whose lease ran out.

    `everyone` takes the turns of all other owners at once: only for a database that one process
    owns alone, at its start. Every change of owner raises the epoch.
    """
    free: list[ColumnElement[bool]] = [turns.c.owner.is_(None)]
    if expired:
        free.append(turns.c.lease_until < now_plus())
    if everyone:
        free.append(turns.c.owner != terms.owner)
    async with database.transaction("duty") as connection:
        found = await connection.scalars(
            select(turns.c.id)
            .where(
                is_active(turns),
                or_(*free),
                # What another release folds is left to it, until it is late.
                or_(turns.c.fold_version.in_(terms.fold_versions), turns.c.deadline_at < now_plus()),
            )
            .order_by(turns.c.lease_until)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        ids = list(found)
        if not ids:
            return []
        await connection.execute(
            update(turns)
            .where(turns.c.id.in_(ids))
            .values(
                # A release clears the owner first, and we are not dead: only turns taken from the dead count.
                adoptions=turns.c.adoptions
                + case((or_(turns.c.owner.is_(None), turns.c.owner == terms.owner), 0), else_=1),
                owner=terms.owner,
                epoch=turns.c.epoch + 1,
                lease_until=now_plus(terms.lease_seconds),
            )
        )
        return await read_turns(connection, terms, turns.c.id.in_(ids))


async def take_back(database: Database, terms: OwnerContext, task_ids: list[TaskId]) -> list[Turn]:
    """Own released turns again that nobody has adopted (R12); those that it returns are ours."""
    ours = turns.c.id.in_(task_ids), turns.c.owner == terms.owner
    async with database.transaction("duty") as connection:
        await connection.execute(
            update(turns)
            .where(turns.c.id.in_(task_ids), turns.c.owner.is_(None), is_active(turns))
            .values(owner=terms.owner, epoch=turns.c.epoch + 1, lease_until=now_plus(terms.lease_seconds))
        )
        return await read_turns(connection, terms, *ours)


async def load(database: Database, terms: OwnerContext, task_id: TaskId) -> Turn | None:
    """A turn as it stands, to follow it."""
    async with database.reading(anyhow=True) as session:
        found = await read_turns(await session.connection(), terms, turns.c.id == task_id)
    return found[0] if found else None


async def statuses(
    database: Database, terms: OwnerContext, task_ids: list[TaskId]
) -> dict[TaskId, TurnStatus]:
    """Where these turns stand: one query for all the turns that a process follows (R6)."""
    async with database.reading(anyhow=True) as session:
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
                elsewhere=row.owner is not None and row.owner != terms.owner,
                free=row.owner is None and row.state in ACTIVE_STATES,
            )
            for row in rows
        }


async def release(
    database: Database, terms: OwnerContext, held: list[tuple[Turn, bytes | None]]
) -> set[TaskId]:
    """Give turns up, with their checkpoints, so that another process adopts them at once (R12).

    Returns those that were. One that is being sent is not: its run would be lost (R4).
    """
    released: set[TaskId] = set()
    async with database.transaction("duty") as connection:
        for turn, state in held:
            ours = {"task": turn.task_id, "our_owner": terms.owner, "our_epoch": turn.epoch, "saved": state}
            if (await connection.execute(_RELEASE, ours)).rowcount:
                released.add(turn.task_id)
    return released


async def save_checkpoints(database: Database, terms: OwnerContext, held: list[tuple[Turn, bytes]]) -> None:
    """Store the fold states of running turns of ours, in one batch."""
    async with database.transaction("duty") as connection:
        await connection.execute(
            _CHECKPOINT,
            [
                {"task": turn.task_id, "our_owner": terms.owner, "our_epoch": turn.epoch, "saved": state}
                for turn, state in held
            ],
        )


async def read_turns(
    connection: AsyncConnection, terms: OwnerContext, *which: ColumnElement[bool]
) -> list[Turn]:
    """Turns as their rows stand, with all that running them needs.

    One whose app's configuration this release can not read is left to another release; when it is late
    it is not runnable, so that it ends (R17).
    """
    found: list[Turn] = []
    for row in await connection.execute(_TURN.where(*which)):
        try:
            found.append(_turn(row, terms, read_config(row.config)))
        except ValidationError:
            logger.error("turn %s: the configuration of its app can not be read by this release", row.id)
            if row.deadline_at < row.now:
                found.append(replace(_turn(row, terms, default_app()), runnable=False))
    return found


def _turn(row: Row[Any], terms: OwnerContext, config: AppConfig) -> Turn:
    form = form_of(row) if row.form_token else None
    return Turn(
        task_id=TaskId(row.id),
        conversation_id=ConversationId(row.conversation_id),
        message_id=MessageId(row.message_id),
        created_at=int(row.message_created_at.timestamp()),
        app=App(AppId(row.app_id), AppVersionId(row.app_version_id), config),
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
        runnable=row.adoptions < MAX_ADOPTIONS and row.fold_version in terms.fold_versions,
        form=form,
        trace=Trace(row.trace_id or "", row.trace_session_id or ""),
    )


_OURS = (
    turns.c.id == bindparam("task"),
    turns.c.owner == bindparam("our_owner"),
    turns.c.epoch == bindparam("our_epoch"),
    is_active(turns),
)
_RELEASE = (
    update(turns)
    .where(*_OURS, turns.c.state != TurnState.SENDING)
    .values(
        owner=None,
        epoch=turns.c.epoch + 1,
        lease_until=None,
        checkpoint=func.coalesce(bindparam("saved"), turns.c.checkpoint),
    )
)
_CHECKPOINT = update(turns).where(*_OURS).values(checkpoint=bindparam("saved"))
_TURN = (
    select(
        turns,
        messages.c.query,
        stored_inputs().label("inputs"),
        conversations.c.inputs.label("kept_inputs"),
        messages.c.files,
        messages.c.created_at.label("message_created_at"),
        conversations.c.app_id,
        end_users.c.external_id.label("user"),
        app_versions.c.config,
        snapshots.c.data.label("snapshot"),
        forms.c.snapshot.label("form_snapshot"),
        *form_columns()[1:],
        now_plus().label("now"),
    )
    .join(messages, messages.c.id == turns.c.message_id)
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .join(end_users, end_users.c.id == conversations.c.end_user_id)
    .join(app_versions, app_versions.c.id == turns.c.app_version_id)
    .outerjoin(asking_messages, refers())
    .outerjoin(snapshots, snapshots.c.conversation_id == turns.c.conversation_id)
    .outerjoin(forms, forms.c.id == turns.c.form_id)
)
