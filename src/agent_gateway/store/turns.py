"""The turn's writes by its owner and by whoever stops it (durability.md, R4-R11).

Every write of an owner is guarded by owner, epoch and state; a write that matches no row changed
nothing and says so (I9). Lock order: conversation, then turn.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, tuple_, update
from sqlmodel import col

from agent_gateway.domain import (
    AppId,
    Caller,
    Outcome,
    RunId,
    TaskId,
    Turn,
    TurnRequest,
    TurnState,
)
from agent_gateway.events import GATEWAY_END, Result
from agent_gateway.store.begin import Terms, begin, find_by_key
from agent_gateway.store.database import Database, now_plus, rows_changed
from agent_gateway.store.results import (
    ACTIVE,
    TurnView,
    end_expired,
    end_lost,
    read_result,
    read_view,
    write_result,
)
from agent_gateway.store.tables import ConversationRow, EndUserRow, TurnRow


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop found: the run to cancel, if it is known yet."""

    run_id: RunId | None


class TurnStore:
    """All turn writes of one process."""

    def __init__(self, database: Database, terms: Terms) -> None:
        self._database = database
        self._terms = terms

    async def begin(self, caller: Caller, request: TurnRequest) -> Turn | TaskId:
        """See `store.begin.begin`."""
        return await begin(self._database, self._terms, caller, request)

    async def find_by_key(self, caller: Caller, request: TurnRequest) -> TaskId | None:
        """See `store.begin.find_by_key`."""
        return await find_by_key(self._database, caller, request)

    async def arm(self, turn: Turn) -> bool:
        """`planned → sending`, before POST /runs. False: stopped meanwhile, or no longer ours (R4).

        May be repeated when the answer of the first try was lost (R14); so may `running`.
        """
        return await self._advance(
            turn,
            col(TurnRow.state).in_((TurnState.PLANNED, TurnState.SENDING)),
            col(TurnRow.stop_at).is_(None),
            state=TurnState.SENDING.value,
        )

    async def running(self, turn: Turn, run_id: RunId) -> bool:
        """`sending → running` with the run's id, before the first event goes out (R4)."""
        return await self._advance(
            turn,
            col(TurnRow.state).in_((TurnState.SENDING, TurnState.RUNNING)),
            state=TurnState.RUNNING.value,
            run_id=run_id,
        )

    async def _advance(self, turn: Turn, *guards: ColumnElement[bool], **values: Any) -> bool:
        async with self._database.transaction() as session:
            changed = await session.execute(
                update(TurnRow).where(*self._ours(turn), *guards).values(**values)
            )
            return rows_changed(changed) == 1

    def _ours(self, turn: Turn) -> tuple[ColumnElement[bool], ...]:
        return (
            col(TurnRow.id) == turn.task_id,
            col(TurnRow.owner) == self._terms.owner,
            col(TurnRow.epoch) == turn.epoch,
        )

    async def finish(self, turn: Turn, decide: Callable[[bool], Result]) -> Result | None:
        """The turn's last write: answer, marks, steps, usage and snapshot in one commit (I2, R7).

        `decide` makes the result, knowing whether a stop was asked for before this commit. Returns
        what was stored, or None when the turn is no longer ours or has ended: nothing was written.
        """
        async with self._database.transaction(duty=True) as session:
            await session.scalars(
                select(col(ConversationRow.id))
                .where(col(ConversationRow.id) == turn.conversation_id)
                .with_for_update()
            )
            found = await session.scalars(
                select(TurnRow).where(*self._ours(turn), col(TurnRow.state).in_(ACTIVE)).with_for_update()
            )
            row = found.first()
            if row is None:
                return None
            result = decide(row.stop_at is not None)
            await write_result(session, row, result)
            return result

    async def heartbeat(self, held: Iterable[Turn]) -> dict[TaskId, bool]:
        """Renew the leases of these turns in one statement (R6).

        Returns task id → whether a stop was asked for. A turn that does not come back is not ours.
        """
        pairs = [(turn.task_id, turn.epoch) for turn in held]
        if not pairs:
            return {}
        async with self._database.transaction(duty=True) as session:
            renewed = await session.execute(
                update(TurnRow)
                .where(
                    tuple_(col(TurnRow.id), col(TurnRow.epoch)).in_(pairs),
                    col(TurnRow.owner) == self._terms.owner,
                    col(TurnRow.state).in_(ACTIVE),
                )
                .values({"lease_until": now_plus(self._terms.lease_seconds)})
                .returning(col(TurnRow.id), col(TurnRow.stop_at))
            )
            return {TaskId(task_id): stop_at is not None for task_id, stop_at in renewed.all()}

    async def stop(self, caller: Caller, task_id: TaskId, reason: str = "user") -> Stopped | None:
        """Record that a caller asked to stop (R9); None when there is nothing of theirs to stop.

        A turn whose run was not asked for yet ends in this same transaction.
        """
        async with self._database.transaction() as session:
            conversation = await session.scalars(
                select(col(ConversationRow.id))
                .join(TurnRow, col(TurnRow.conversation_id) == col(ConversationRow.id))
                .join(EndUserRow, col(EndUserRow.id) == col(ConversationRow.end_user_id))
                .where(
                    col(TurnRow.id) == task_id,
                    col(ConversationRow.app_id) == caller.app.id,
                    col(EndUserRow.external_id) == caller.user,
                )
                .with_for_update(of=ConversationRow)
            )
            if conversation.first() is None:
                return None
            found = await session.scalars(
                select(TurnRow)
                .where(col(TurnRow.id) == task_id, col(TurnRow.state) != TurnState.ENDED)
                .with_for_update()
            )
            row = found.first()
            if row is None:
                return None
            run_id, early = row.run_id, row.state in (TurnState.QUEUED, TurnState.PLANNED)
            await session.execute(
                update(TurnRow)
                .where(col(TurnRow.id) == task_id)
                .values(stop_at=func.coalesce(col(TurnRow.stop_at), now_plus()), stop_reason=reason)
            )
            if early:
                await write_result(session, row, Result(Outcome.STOPPED, (), (), GATEWAY_END))
            return Stopped(RunId(run_id) if run_id else None)

    async def end_orphans(self) -> int:
        """End every active turn of other owners as interrupted; returns their number.

        Only for a database that one process owns alone (SQLite), at its start.
        """
        foreign = or_(col(TurnRow.owner).is_(None), col(TurnRow.owner) != self._terms.owner)
        async with self._database.transaction() as session:
            return await end_lost(session, foreign)

    async def end_if_expired(self, task_id: TaskId) -> None:
        """End a turn as interrupted when its lease ran out: its process is gone (I4)."""
        async with self._database.transaction() as session:
            await end_expired(session, col(TurnRow.id) == task_id)

    async def view(self, app_id: AppId, user: str, task_id: TaskId) -> TurnView | None:
        """A turn of this app and user, or None."""
        return await read_view(self._database, app_id, user, task_id)

    async def result(self, task_id: TaskId) -> Result | None:
        """How a turn ended, with all it produced; None while it has not."""
        return await read_result(self._database, task_id)
