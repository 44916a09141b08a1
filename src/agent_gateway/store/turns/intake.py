"""What callers may do with turns: begin, stop and delete them, and answer their questions."""

from asyncio import Event
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.domain.files import InputFile
from agent_gateway.domain.human_input import Submission
from agent_gateway.domain.ids import AppId, ConversationId, TaskId, new_id
from agent_gateway.domain.turns import NO_TRACE, Caller, Trace, Turn, TurnRequest, TurnState
from agent_gateway.errors import ConversationBusy, NotFound, StoreHeldUp, StoreRejected, StoreUnavailable
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.scope import owned, scope_of
from agent_gateway.store.db.tables import conversations, turns
from agent_gateway.store.message_files import resolve_files
from agent_gateway.store.question_forms import withdraw_answer
from agent_gateway.store.turns.admission import check_concurrency, check_query
from agent_gateway.store.turns.common_path import CommonPath
from agent_gateway.store.turns.common_turns import common_message, common_turn
from agent_gateway.store.turns.conversation_state import (
    ConversationState,
    continue_conversation,
    new_conversation,
)
from agent_gateway.store.turns.form_answers import expire_batch, submit_form
from agent_gateway.store.turns.idempotency import claim_key, find_turn_of_key
from agent_gateway.store.turns.locks import LOCKED_TURN, LockedTurn, lock_conversation, lock_conversation_of
from agent_gateway.store.turns.outbox import Outbox
from agent_gateway.store.turns.rows import NewTurn, OwnerContext, insert_turn, read_turns
from agent_gateway.store.turns.stopping import Stopped, delete_conversation, interrupt, stop_turn

NOT_BEGUN: Final = "not begun"
"""Why a turn is stopped whose client got the answer that no turn was begun (R14)."""
BEGIN_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn that was begun: `planned` and ours to run, or `queued` behind an active one."""

    turn: Turn
    interrupted: Sequence[Stopped] = ()
    """The earlier turns of the conversation that were asked to stop, as the app wants."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """The request repeats an earlier one with the same Idempotency-Key, which began this turn."""

    task_id: TaskId


class TurnIntake:
    """Begins and stops turns on behalf of callers. Lock order: conversation, then turn (R10)."""

    def __init__(
        self,
        database: Database,
        context: OwnerContext,
        outbox: Outbox,
        promoted: Event,
        common: CommonPath,
    ) -> None:
        self._database = database
        self._common = common
        self._context = context
        self._outbox = outbox
        self._promoted = promoted

    async def begin(
        self, caller: Caller, request: TurnRequest, task_id: TaskId | None = None
    ) -> StartedTurn | Repeated:
        """Insert a turn's first rows in one transaction (I1, R3, R15).

        Returns what was begun, or which turn the Idempotency-Key began before. Raises NotFound,
        FileNotFound, InvalidParam, ConversationBusy, TooManyRequests, IdempotencyConflict, QuestionOpen,
        StoreUnavailable. A caller that chooses the `task_id` can find the turn again after a commit whose
        answer was lost (R14).
        """
        task_id = task_id or TaskId(new_id())
        if turn := await self._begin_commonly(caller, request, task_id):
            return StartedTurn(turn)
        for _ in range(BEGIN_TRIES):
            try:
                async with self._database.transaction() as connection:
                    return await self._begin(connection, caller, request, task_id)
            except (IntegrityError, ConversationBusy) as error:
                # Another request with the same key, end user or conversation was faster. If it had the
                # same key, this one is its repetition, even where the conversation is busy.
                if repeated := await self._repeated(caller, request):
                    return repeated
                if isinstance(error, ConversationBusy):
                    raise
        raise StoreUnavailable(f"begin met a conflict {BEGIN_TRIES} times")

    async def _begin_commonly(self, caller: Caller, request: TurnRequest, task_id: TaskId) -> Turn | None:
        message = common_message(caller, request, task_id)
        if message is None:
            return None
        try:
            begun = await self._common.begin(message)
        except (StoreRejected, StoreHeldUp):
            # The other way says what is wrong with it, or waits alone.
            return None
        return common_turn(self._context, caller, request, message, begun) if begun else None

    async def _repeated(self, caller: Caller, request: TurnRequest) -> Repeated | None:
        if not request.idempotency_key:
            return None
        async with self._database.reading() as session:
            task_id = await find_turn_of_key(session, caller, request)
        return Repeated(task_id) if task_id else None

    async def _begin(
        self, connection: AsyncConnection, caller: Caller, request: TurnRequest, task_id: TaskId
    ) -> StartedTurn:
        if request.idempotency_key:
            if request.conversation_id:
                # The common path locks in this order, too.
                await lock_conversation_of(connection, caller, request.conversation_id)
            await claim_key(connection, caller, request, task_id)
        check_query(caller.app, request)
        if request.conversation_id:
            state = await continue_conversation(connection, caller, request, request.conversation_id, task_id)
        else:
            state = await new_conversation(connection, caller, request)
        if state.active is None:
            await check_concurrency(connection, caller.app)
        turn = await self._insert(connection, caller, request, task_id, state)
        if state.active is None or state.app.config.on_busy != "interrupt":
            return StartedTurn(turn)
        stopped = await interrupt(connection, state.conversation_id, task_id, self._context.turn_seconds)
        return StartedTurn(turn, stopped)

    async def _insert(
        self,
        connection: AsyncConnection,
        caller: Caller,
        request: TurnRequest,
        task_id: TaskId,
        state: ConversationState,
    ) -> Turn:
        files = await resolve_files(connection, caller, request.files)
        new = self._new_turn(request, task_id, state, files)
        return Turn(
            task_id=task_id,
            conversation_id=state.conversation_id,
            message_id=await insert_turn(connection, self._context, new, state.now),
            created_at=int(state.now.timestamp()),
            app=state.app,
            user=caller.user,
            query=request.query,
            inputs=state.inputs,
            files=files,
            snapshot=state.snapshot,
            epoch=1,
            fold_version=self._context.fold_versions[0],
            seconds_left=self._context.turn_seconds,
            state=new.state,
            form=state.form,
            trace=request.trace,
        )

    def _new_turn(
        self, request: TurnRequest, task_id: TaskId, state: ConversationState, files: list[InputFile]
    ) -> NewTurn:
        must_wait = state.active is not None
        return NewTurn(
            task_id=task_id,
            conversation_id=state.conversation_id,
            app_version_id=state.app.version_id,
            seq=state.seq,
            query=request.query,
            inputs=state.own_inputs,
            files=files,
            state=TurnState.QUEUED if must_wait else TurnState.PLANNED,
            owner=None if must_wait else self._context.owner,
            form_id=state.form.id if state.form else None,
            trace=request.trace,
        )

    async def submit(
        self, app_id: AppId, token: str, submission: Submission, trace: Trace = NO_TRACE
    ) -> Turn:
        """Store what a human answered and begin the turn that carries it, in one transaction.

        The turn is `planned` and ours to run, or `queued` behind an active one. Raises NotFound,
        FormAlreadySubmitted, FormExpired, and InvalidParam for a submission that does not fit the form, which
        stays open.
        """
        async with self._database.transaction() as connection:
            task_id = await submit_form(connection, self._context, app_id, token, submission, trace)
            (turn,) = await read_turns(connection, self._context, turns.c.id == task_id)
            return turn

    async def expire_forms(self) -> int:
        """Close up to EXPIRY_BATCH expired forms, and begin the turns that tell their runs so.

        Returns how many forms were closed. Any process may adopt the turns.
        """
        async with self._database.transaction("duty") as connection:
            closed, begun = await expire_batch(connection, self._context)
        if begun:
            self._promoted.set()
        return closed

    _CONVERSATION_OF_TURN: Final = (
        select(conversations.c.id)
        .join(turns, turns.c.conversation_id == conversations.c.id)
        .where(turns.c.id == bindparam("task"), owned(conversations))
    )
    _UNENDED_TURN: Final = LOCKED_TURN.where(
        turns.c.id == bindparam("task"), turns.c.state != TurnState.ENDED
    )

    async def stop(self, caller: Caller, task_id: TaskId, reason: str = "user") -> Stopped | None:
        """Record that a caller asked to stop (R9); None when this caller has no such unended turn.

        A turn without a run ends in this same transaction.
        """
        scope = scope_of(caller.app.id, caller.user) | {"task": task_id}
        async with self._database.transaction() as connection:
            conversation_id = await connection.scalar(self._CONVERSATION_OF_TURN, scope)
            if conversation_id is None or await lock_conversation(connection, conversation_id) is None:
                return None
            row = (await connection.execute(self._UNENDED_TURN, {"task": task_id})).first()
            if row is None:
                return None
            turn = LockedTurn(*row)
            if reason == NOT_BEGUN and turn.form_id and turn.state in (TurnState.QUEUED, TurnState.PLANNED):
                await withdraw_answer(connection, turn)
            promoted = await stop_turn(connection, turn, reason, self._context.turn_seconds)
        if promoted:
            self._promoted.set()
        return Stopped.of(turn)

    async def delete(self, caller: Caller, conversation_id: ConversationId) -> list[Stopped]:
        """Delete a caller's conversation (R16); returns the turns that it stopped. Raises NotFound."""
        async with self._database.transaction() as connection:
            deleted = await delete_conversation(
                connection, caller, conversation_id, self._context.turn_seconds
            )
        if deleted is None:
            raise NotFound("Conversation Not Exists.")
        stopped, closing = deleted
        if closing:
            self._outbox.written.set()
        return stopped
