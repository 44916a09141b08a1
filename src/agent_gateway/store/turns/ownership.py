"""What the owner of turns may do: adopt, drive, release and finish them (R4-R12)."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, bindparam, case, func, or_, select, update

from agent_gateway.domain.events import Endings, Result
from agent_gateway.domain.ids import RunId, TaskId
from agent_gateway.domain.turns import TakenFrom, Turn, TurnState
from agent_gateway.errors import StoreHeldUp, StoreRejected
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import is_active, turns
from agent_gateway.store.message_files import detach_files
from agent_gateway.store.question_forms import open_form
from agent_gateway.store.turns.common_path import CommonPath, OwnedTurn
from agent_gateway.store.turns.common_turns import common_end
from agent_gateway.store.turns.finish import write_result
from agent_gateway.store.turns.locks import LOCKED_TURN, LockedTurn, lock_conversation
from agent_gateway.store.turns.outbox import Outbox, enqueue_followups
from agent_gateway.store.turns.rows import OwnerContext, read_turns
from agent_gateway.store.turns.transitions import ARM, MARK_RUNNING, OURS

ADOPTION_BATCH: Final = 50
"""Turns taken over in one transaction."""
HEARTBEAT_BATCH: Final = 500
"""Turns renewed by one statement, which holds their rows until its commit."""


class OwnedTurns:
    """The writes of the process that owns a turn.

    Each is guarded by owner, epoch and state: a write that matches no row changed nothing, and reports
    that (I9). Arm, running and finish are not cancelled with their caller once they are on their way.
    """

    def __init__(self, database: Database, context: OwnerContext, outbox: Outbox, common: CommonPath) -> None:
        self._database = database
        self._common = common
        self._context = context
        self._outbox = outbox
        self.promoted = asyncio.Event()
        """Set when a write of this process planned a turn that has no owner until it is adopted."""

    def _ours(self, turn: Turn) -> dict[str, str | int]:
        return {"task": turn.task_id, "our_owner": self._context.owner, "our_epoch": turn.epoch}

    async def adopt(self, *, expired: bool, everyone: bool = False) -> list[Turn]:
        """Take over up to ADOPTION_BATCH turns without owner, and with `expired` those whose lease ran out.

        `everyone` takes the turns of all other owners at once: only for a database that one process
        owns alone, at its start. Every change of owner raises the epoch (R10, R11).
        """
        free: list[ColumnElement[bool]] = [turns.c.owner.is_(None)]
        if expired:
            free.append(turns.c.lease_until < now_plus())
        if everyone:
            free.append(turns.c.owner != self._context.owner)
        async with self._database.transaction("duty") as connection:
            found = await connection.execute(
                select(turns.c.id, turns.c.owner, turns.c.state)
                .where(
                    is_active(turns),
                    or_(*free),
                    # A turn with another release's fold is left to that release, until it is late.
                    or_(
                        turns.c.fold_version.in_(self._context.fold_versions),
                        turns.c.deadline_at < now_plus(),
                    ),
                )
                .order_by(turns.c.lease_until)
                .limit(ADOPTION_BATCH)
                .with_for_update(skip_locked=True)
            )
            taken = {row.id: _taken_from(row.owner, row.state, self._context.owner) for row in found}
            ids = list(taken)
            if not ids:
                return []
            # Only a turn whose owner died counts as adopted: a release clears the owner first, and this
            # process is alive.
            not_dead = or_(turns.c.owner.is_(None), turns.c.owner == self._context.owner)
            await connection.execute(
                update(turns)
                .where(turns.c.id.in_(ids))
                .values(adoptions=turns.c.adoptions + case((not_dead, 0), else_=1), **self._ownership())
            )
            read = await read_turns(connection, self._context, turns.c.id.in_(ids))
            return [msgspec.structs.replace(turn, taken=taken[turn.task_id]) for turn in read]

    async def take_back(self, task_ids: list[TaskId]) -> list[Turn]:
        """Own released turns again that no process has adopted (R12). Those that it returns are ours."""
        ours = turns.c.id.in_(task_ids), turns.c.owner == self._context.owner
        async with self._database.transaction("duty") as connection:
            await connection.execute(
                update(turns)
                .where(turns.c.id.in_(task_ids), turns.c.owner.is_(None), is_active(turns))
                .values(self._ownership())
            )
            return await read_turns(connection, self._context, *ours)

    def _ownership(self) -> dict[str, str | ColumnElement[int] | ColumnElement[datetime]]:
        """A change of owner to this process."""
        return {
            "owner": self._context.owner,
            "epoch": turns.c.epoch + 1,
            "lease_until": now_plus(self._context.lease_seconds),
        }

    async def heartbeat(self, held: Iterable[Turn]) -> dict[TaskId, bool]:
        """Renew the leases of these turns, in as few statements as databases can process (R6).

        Returns task id → whether a stop was asked for. A turn that is not in it is not ours.
        """
        every = list(held)
        renewed: dict[TaskId, bool] = {}
        # Even without any turn: it proves that the database takes writes, so that leases could be renewed.
        for start in range(0, max(1, len(every)), HEARTBEAT_BATCH):
            renewed |= await self._renew(every[start : start + HEARTBEAT_BATCH])
        return renewed

    async def _renew(self, held: Sequence[Turn]) -> dict[TaskId, bool]:
        renewed = await self._common.renew([OwnedTurn(turn.task_id, turn.epoch) for turn in held])
        found = zip(held, renewed, strict=True)
        return {turn.task_id: state.stop_asked for turn, state in found if state is not None}

    async def arm(self, turn: Turn) -> bool:
        """`planned → sending`, before POST /runs. False: stopped meanwhile, or no longer ours (R4).

        May be repeated when the answer of the first try was lost (R14); so may `mark_running`.
        """
        with suppress(StoreHeldUp):
            if await self._common.arm(OwnedTurn(turn.task_id, turn.epoch)):
                return True
        return await self._database.shielded(self._arm(turn))

    async def _arm(self, turn: Turn) -> bool:
        async with self._database.transaction() as connection:
            changed = await connection.execute(ARM, self._ours(turn))
            return changed.rowcount == 1

    async def mark_running(self, turn: Turn, run_id: RunId) -> bool | None:
        """`sending → running` with the run's id, before the first event is sent to a client (R4).

        Returns whether a stop was asked for meanwhile, or None when the turn is no longer ours.
        """
        with suppress(StoreHeldUp):
            running = await self._common.mark_running(OwnedTurn(turn.task_id, turn.epoch, run_id))
            if running is not None:
                return running.stop_asked
        return await self._database.shielded(self._mark_running(turn, run_id))

    async def _mark_running(self, turn: Turn, run_id: RunId) -> bool | None:
        async with self._database.transaction() as connection:
            changed = await connection.execute(MARK_RUNNING, {**self._ours(turn), "run_id": run_id})
            row = changed.first()
            return None if row is None else row.stop_at is not None

    _SAVE_CHECKPOINT: Final = (
        update(turns).where(*OURS, is_active(turns)).values(checkpoint=bindparam("saved"))
    )

    async def save_checkpoints(self, held: list[tuple[Turn, bytes]]) -> None:
        """Store the fold states of running turns of ours, in one batch (R5)."""
        async with self._database.transaction("duty") as connection:
            await connection.execute(
                self._SAVE_CHECKPOINT,
                [{**self._ours(turn), "saved": state} for turn, state in sorted(held, key=_task_of)],
            )

    _RELEASE: Final = (
        update(turns)
        .where(*OURS, is_active(turns), turns.c.state != TurnState.SENDING)
        .values(
            owner=None,
            epoch=turns.c.epoch + 1,
            lease_until=None,
            checkpoint=func.coalesce(bindparam("saved"), turns.c.checkpoint),
        )
    )

    async def release(self, held: list[tuple[Turn, bytes | None]]) -> set[TaskId]:
        """Release turns, with their checkpoints, so that another process adopts them at once (R12).

        Returns those that were released. A turn in `sending` is not: its run would be lost (R4).
        """
        released: set[TaskId] = set()
        async with self._database.transaction("duty") as connection:
            for turn, state in sorted(held, key=_task_of):
                changed = await connection.execute(self._RELEASE, {**self._ours(turn), "saved": state})
                if changed.rowcount:
                    released.add(turn.task_id)
        return released

    _LOCK_OURS: Final = LOCKED_TURN.where(*OURS, is_active(turns))

    async def finish(self, turn: Turn, endings: Endings) -> Result | None:
        """The turn's last write: answer, marks, steps, usage and snapshot in one commit (I2, R7).

        Returns the one of the two ends that was stored, or None when the turn is no longer ours or has
        ended: then nothing was written.
        """
        if await self._finish_commonly(turn, endings.normal):
            return endings.normal
        return await self._database.shielded(self._finish(turn, endings))

    async def _finish(self, turn: Turn, endings: Endings) -> Result | None:
        async with self._database.transaction("duty") as connection:
            conversation = await lock_conversation(connection, turn.conversation_id)
            found = (await connection.execute(self._LOCK_OURS, self._ours(turn))).first()
            if conversation is None or found is None:
                return None
            row = LockedTurn(*found)
            result = endings.normal if row.stop_at is None else endings.if_stopped
            form = None
            if result.question is not None:
                seconds = turn.app.config.question_expires_seconds
                form = await open_form(connection, row, result.question, seconds)
            promoted = await write_result(connection, row, result, self._context.turn_seconds)
            if conversation.deleted_at is not None:
                await detach_files(connection, turn.conversation_id)
            due = await enqueue_followups(connection, turn, row, result, conversation)
        if promoted:
            self.promoted.set()
        if due:
            self._outbox.written.set()
        return replace(result, question=None, form=form, answered=turn.form)

    async def _finish_commonly(self, turn: Turn, result: Result) -> bool:
        end = await common_end(turn, result)
        if end is None:
            return False
        try:
            return await self._common.finish(end)
        except (StoreRejected, StoreHeldUp):
            # The other way says what is wrong with it, or waits alone.
            return False


def _taken_from(owner: str | None, state: str, ours: str) -> TakenFrom:
    if owner is not None and owner != ours:
        return TakenFrom.DEAD
    return TakenFrom.QUEUE if state == TurnState.PLANNED else TakenFrom.RELEASED


def _task_of(held: tuple[Turn, object]) -> TaskId:
    """Rows of turns are locked in this order, as a heartbeat does."""
    return held[0].task_id
