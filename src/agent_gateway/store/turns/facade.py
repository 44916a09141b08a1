"""The turn's writes by its owner and by whoever stops it (docs/design/durability.md, R4-R11).

Every write of an owner is guarded by owner, epoch and state; a write that matches no row changed
nothing and says so (I9). Lock order: conversation, then turn.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import bindparam, select, tuple_, update

from agent_gateway.domain.events import Endings, Result
from agent_gateway.domain.human_input import Submission
from agent_gateway.domain.ids import AppId, ConversationId, RunId, TaskId
from agent_gateway.domain.turns import AnsweredTurn, Caller, Turn, TurnRequest, TurnState
from agent_gateway.errors import NotFound
from agent_gateway.store.db.database import Database, now_plus
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, is_active, turns
from agent_gateway.store.files import forget_files
from agent_gateway.store.question_forms import open_form, withdraw_answer
from agent_gateway.store.turns.adopt import (
    TurnStatus,
    adopt,
    load,
    release,
    save_checkpoints,
    statuses,
    take_back,
)
from agent_gateway.store.turns.answered_turns import first_answered_turn
from agent_gateway.store.turns.begin import StartedTurn, begin
from agent_gateway.store.turns.form_answers import expire, submit
from agent_gateway.store.turns.idempotency import find_by_key, forget_old_keys
from agent_gateway.store.turns.new_turn import OwnerContext
from agent_gateway.store.turns.outbox import Outbox, put_after
from agent_gateway.store.turns.results import (
    TurnView,
    lock_conversation,
    read_result,
    read_view,
    write_result,
)
from agent_gateway.store.turns.stopping import Stopped, delete_conversation, stop_turn

NOT_BEGUN: Final = "not begun"
"""Why a turn is stopped whose client was told that there is none (R14)."""
BEAT: Final = 500
"""Turns renewed by one statement: thousands of pairs in one exceed what Postgres can parse."""


class TurnStore:
    """All turn writes of one process."""

    def __init__(self, database: Database, terms: OwnerContext) -> None:
        self._database = database
        self._terms = terms
        self.promoted = asyncio.Event()
        """Set when a write of this process let a queued turn go, which is nobody's until it is adopted."""
        self.outbox = Outbox(database, terms)

    async def begin(
        self, caller: Caller, request: TurnRequest, task_id: TaskId | None = None
    ) -> StartedTurn | TaskId:
        """See `store.begin.begin`."""
        return await begin(self._database, self._terms, caller, request, task_id)

    async def forget_old_keys(self) -> int:
        """See `store.idempotency.forget_old_keys`."""
        return await forget_old_keys(self._database)

    async def find_by_key(self, caller: Caller, request: TurnRequest) -> TaskId | None:
        """See `store.idempotency.find_by_key`."""
        return await find_by_key(self._database, caller, request)

    async def arm(self, turn: Turn) -> bool:
        """`planned → sending`, before POST /runs. False: stopped meanwhile, or no longer ours (R4).

        May be repeated when the answer of the first try was lost (R14); so may `running`.
        """
        async with self._database.transaction() as connection:
            changed = await connection.execute(_ARM, self._ours(turn))
            return changed.rowcount == 1

    async def running(self, turn: Turn, run_id: RunId) -> bool | None:
        """`sending → running` with the run's id, before the first event goes out (R4).

        Returns whether a stop was asked for meanwhile, or None when the turn is no longer ours.
        """
        async with self._database.transaction() as connection:
            changed = await connection.execute(_RUNNING, {**self._ours(turn), "run_id": run_id})
            row = changed.first()
            return None if row is None else row.stop_at is not None

    def _ours(self, turn: Turn) -> dict[str, Any]:
        return {"task": turn.task_id, "our_owner": self._terms.owner, "our_epoch": turn.epoch}

    async def finish(self, turn: Turn, endings: Endings) -> Result | None:
        """The turn's last write: answer, marks, steps, usage and snapshot in one commit (I2, R7).

        Returns the one of the two ends that was stored, or None when the turn is no longer ours or has
        ended: nothing was written.
        """
        async with self._database.transaction("duty") as connection:
            conversation = await lock_conversation(connection, turn.conversation_id)
            row = (await connection.execute(_OUR_ACTIVE_TURN, self._ours(turn))).first()
            if row is None:
                return None
            result = endings.normal if row.stop_at is None else endings.if_stopped
            form = None
            if result.question is not None:
                seconds = turn.app.config.question_expires_seconds
                form = await open_form(connection, row, result.question, seconds)
            promoted = await write_result(connection, row, result, self._terms.turn_seconds)
            if conversation.deleted_at is not None:
                await forget_files(connection, turn.conversation_id)
            owed = await put_after(connection, turn, row, result, conversation)
        if promoted:
            self.promoted.set()
        if owed:
            self.outbox.written.set()
        return replace(result, question=None, form=form, answered=turn.form)

    async def heartbeat(self, held: Iterable[Turn]) -> dict[TaskId, bool]:
        """Renew the leases of these turns, in as few statements as databases bear (R6).

        Returns task id → whether a stop was asked for. A turn that does not come back is not ours.
        """
        pairs = [(turn.task_id, turn.epoch) for turn in held]
        renewed: dict[TaskId, bool] = {}
        # Without any turn, too: it proves that we could renew them, and that the database takes writes.
        for start in range(0, max(1, len(pairs)), BEAT):
            renewed |= await self._renew(pairs[start : start + BEAT])
        return renewed

    async def _renew(self, pairs: list[tuple[TaskId, int]]) -> dict[TaskId, bool]:
        async with self._database.transaction("heartbeats") as connection:
            renewed = await connection.execute(
                update(turns)
                .where(
                    tuple_(turns.c.id, turns.c.epoch).in_(pairs),
                    turns.c.owner == self._terms.owner,
                    is_active(turns),
                )
                .values(lease_until=now_plus(self._terms.lease_seconds))
                .returning(turns.c.id, turns.c.stop_at)
            )
            return {TaskId(task_id): stop_at is not None for task_id, stop_at in renewed}

    async def stop(self, caller: Caller, task_id: TaskId, reason: str = "user") -> Stopped | None:
        """Record that a caller asked to stop (R9); None when there is nothing of theirs to stop.

        A turn whose run was not asked for yet ends in this same transaction.
        """
        scope = scope_of(caller.app.id, caller.user) | {"task": task_id}
        async with self._database.transaction() as connection:
            conversation_id = await connection.scalar(_CONVERSATION_OF, scope)
            if conversation_id is None:
                return None
            await lock_conversation(connection, conversation_id)
            row = (await connection.execute(_UNENDED_TURN, {"task": task_id})).first()
            if row is None:
                return None
            if reason == NOT_BEGUN and row.form_id and row.state in (TurnState.QUEUED, TurnState.PLANNED):
                await withdraw_answer(connection, row)
            promoted = await stop_turn(connection, row, reason, self._terms.turn_seconds)
        if promoted:
            self.promoted.set()
        return Stopped(task_id, RunId(row.run_id) if row.run_id else None)

    async def delete(self, caller: Caller, conversation_id: ConversationId) -> list[Stopped]:
        """Delete a caller's conversation (R16); returns the turns that it stopped. Raises NotFound."""
        async with self._database.transaction() as connection:
            deleted = await delete_conversation(connection, caller, conversation_id, self._terms.turn_seconds)
        if deleted is None:
            raise NotFound("Conversation Not Exists.")
        stopped, closing = deleted
        if closing:
            self.outbox.written.set()
        return stopped

    async def submit(self, app_id: AppId, token: str, submission: Submission) -> Turn:
        """See `store.answers.submit`."""
        return await submit(self._database, self._terms, app_id, token, submission)

    async def expire_forms(self) -> int:
        """See `store.answers.expire`. Returns how many forms were closed."""
        expired, begun = await expire(self._database, self._terms)
        if begun:
            self.promoted.set()
        return expired

    async def adopt(self, *, expired: bool, everyone: bool = False) -> list[Turn]:
        """See `store.adopt.adopt`."""
        return await adopt(self._database, self._terms, expired=expired, everyone=everyone)

    async def release(self, held: list[tuple[Turn, bytes | None]]) -> set[TaskId]:
        """See `store.adopt.release`."""
        return await release(self._database, self._terms, held)

    async def take_back(self, task_ids: list[TaskId]) -> list[Turn]:
        """See `store.adopt.take_back`."""
        return await take_back(self._database, self._terms, task_ids)

    async def save_checkpoints(self, held: list[tuple[Turn, bytes]]) -> None:
        """See `store.adopt.save_checkpoints`."""
        await save_checkpoints(self._database, self._terms, held)

    async def load(self, task_id: TaskId) -> Turn | None:
        """See `store.adopt.load`."""
        return await load(self._database, self._terms, task_id)

    async def statuses(self, task_ids: list[TaskId]) -> dict[TaskId, TurnStatus]:
        """See `store.adopt.statuses`."""
        return await statuses(self._database, self._terms, task_ids)

    async def first_answered_turn(
        self, caller: Caller, conversation_id: ConversationId
    ) -> AnsweredTurn | None:
        """See `store.exchanges.first_exchange`."""
        return await first_answered_turn(self._database, self._terms, caller, conversation_id)

    async def view(self, app_id: AppId, user: str, task_id: TaskId) -> TurnView | None:
        """A turn of this app and user, or None."""
        return await read_view(self._database, app_id, user, task_id)

    async def result(self, task_id: TaskId) -> Result | None:
        """How a turn ended, with all it produced; None while it has not."""
        return await read_result(self._database, task_id)


_OURS = (
    turns.c.id == bindparam("task"),
    turns.c.owner == bindparam("our_owner"),
    turns.c.epoch == bindparam("our_epoch"),
)
_ARM = (
    update(turns)
    .where(*_OURS, turns.c.state.in_((TurnState.PLANNED, TurnState.SENDING)), turns.c.stop_at.is_(None))
    .values(state=TurnState.SENDING.value)
)
_RUNNING = (
    update(turns)
    .where(*_OURS, turns.c.state.in_((TurnState.SENDING, TurnState.RUNNING)))
    .values(state=TurnState.RUNNING.value, run_id=bindparam("run_id"))
    .returning(turns.c.stop_at)
)
_OUR_ACTIVE_TURN = select(turns).where(*_OURS, is_active(turns)).with_for_update()
_UNENDED_TURN = (
    select(turns).where(turns.c.id == bindparam("task"), turns.c.state != TurnState.ENDED).with_for_update()
)
_CONVERSATION_OF = (
    select(conversations.c.id)
    .join(turns, turns.c.conversation_id == conversations.c.id)
    .where(turns.c.id == bindparam("task"), owned(conversations))
)
