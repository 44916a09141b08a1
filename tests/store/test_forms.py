"""Forms in the rows: one answer, whoever comes; nothing that is not committed with it."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from agent_gateway.domain.events import Endings
from agent_gateway.domain.form_rules import TIMED_OUT
from agent_gateway.domain.human_input import (
    FormState,
    HumanInputForm,
    Question,
    Submission,
)
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Turn
from agent_gateway.errors import (
    FormAlreadySubmitted,
    FormExpired,
    GatewayError,
    InvalidParam,
    NotFound,
    QuestionOpen,
)
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.question_forms import FormStore, cancel_form
from agent_gateway.store.turns.intake import NOT_BEGUN, StartedTurn
from tests.support.store_world import DEFINITION, METADATA, SUBMISSION, World, ask, completed

pytestmark = pytest.mark.anyio

forms = METADATA.tables["forms"]


async def asked(world: World, conversation_id: str | None = None) -> tuple[Turn, HumanInputForm]:
    """A turn that ended with a question."""
    turn = await world.begin(conversation_id=conversation_id)
    assert await world.turns.owned.arm(turn)
    assert await world.turns.owned.mark_running(turn, RunId("run")) is not None
    question = Question("call-1", "Sure?", DEFINITION, '{"open": 1}')
    result = await world.turns.owned.finish(turn, Endings.always(replace(completed(), question=question)))
    assert result is not None
    assert result.form is not None
    assert result.question is None
    return turn, result.form


async def state(world: World, form: HumanInputForm) -> FormState:
    statuses = await FormStore(world.database).statuses([form.id])
    return statuses[form.id].state


async def expire(world: World, form: HumanInputForm) -> None:
    await world.execute(update(forms).where(forms.c.id == form.id).values(expires_at=now_plus(-1)))


async def submit(world: World, form: HumanInputForm, submission: Submission = SUBMISSION) -> Turn:
    return await world.turns.intake.submit(world.app.id, form.token, submission)


async def test_a_question_is_stored_with_the_end_of_its_turn(world: World) -> None:
    """A reader of the row gets the same form; the conversation keeps the snapshot from before."""
    first = await world.ended(snapshot='{"before": 1}')
    turn, form = await asked(world, first.conversation_id)
    read = await world.turns.reader.result(turn.task_id)
    assert read is not None
    assert (read.form, read.answered) == (form, None)
    assert await FormStore(world.database).find(world.app.id, form.token) == form
    assert await FormStore(world.database).find(world.other_app.id, form.token) is None
    answer = await submit(world, form)
    assert (answer.snapshot, answer.state, answer.epoch) == ('{"open": 1}', "planned", 1)
    assert answer.form is not None
    assert answer.form.answer is not None
    assert answer.form.answer.values == {"size": "s"}
    loaded = await world.process().reader.load(answer.task_id)
    assert loaded is not None
    assert msgspec.structs.replace(loaded, seconds_left=answer.seconds_left) == answer
    assert await world.turns.owned.arm(answer)


async def test_a_snapshot_is_kept_while_a_run_can_continue_from_it(world: World) -> None:
    """It holds a whole conversation."""
    turn, form = await asked(world)
    kept = select(forms.c.snapshot).where(forms.c.id == form.id)
    lost = await world.begin(conversation_id=turn.conversation_id)
    await world.turns.intake.stop(world.ann, lost.task_id, NOT_BEGUN)
    async with world.database.reading() as session:
        assert await session.scalar(kept) == '{"open": 1}'
    answer = await submit(world, form)
    async with world.database.reading() as session:
        assert await session.scalar(kept) == '{"open": 1}'
    assert await world.turns.owned.finish(answer, Endings.always(completed(snapshot='{"after": 1}')))
    async with world.database.reading() as session:
        assert await session.scalar(kept) is None
    after = await world.begin(conversation_id=turn.conversation_id)
    assert after.snapshot == '{"after": 1}'


async def test_a_message_continues_from_the_question(world: World) -> None:
    turn, form = await asked(world)
    begun = await world.turns.intake.begin(world.ann, ask(turn.conversation_id, query="Yes"))
    assert isinstance(begun, StartedTurn)
    answer = begun.turn
    assert answer.snapshot == '{"open": 1}'
    assert answer.form is not None
    loaded = await world.turns.reader.load(answer.task_id)
    assert loaded is not None
    assert (loaded.form, loaded.snapshot) == (answer.form, answer.snapshot)
    assert await state(world, form) is FormState.SUBMITTED


async def test_an_invalid_submission_changes_nothing(world: World) -> None:
    _, form = await asked(world)
    async with world.unchanged():
        for submission in (Submission("no", {"size": "s"}), Submission("ok", {})):
            with pytest.raises(InvalidParam):
                await submit(world, form, submission)
        with pytest.raises(NotFound):
            await world.turns.intake.submit(world.other_app.id, form.token, SUBMISSION)
        with pytest.raises(NotFound):
            await world.turns.intake.submit(world.app.id, "unknown", SUBMISSION)
    await expire(world, form)
    async with world.unchanged():
        with pytest.raises(FormExpired):
            await submit(world, form)


async def test_a_refused_message_changes_nothing(world: World) -> None:
    turn, form = await asked(world)
    app = replace(world.app, config=world.app.config.model_copy(update={"on_question": "reject"}))
    async with world.unchanged():
        with pytest.raises(QuestionOpen) as refused:
            await world.turns.intake.begin(replace(world.ann, app=app), ask(turn.conversation_id, key="k"))
    assert refused.value.details == {"message_id": turn.message_id, "form_token": form.token}


async def test_an_answer_that_was_never_begun_leaves_the_question_open(world: World) -> None:
    """Its client was told to try again, and then it is the answer."""
    turn, form = await asked(world)
    lost = await world.begin(conversation_id=turn.conversation_id, query="Yes")
    assert await state(world, form) is FormState.SUBMITTED
    assert await world.turns.intake.stop(world.ann, lost.task_id, NOT_BEGUN)
    assert await state(world, form) is FormState.OPEN
    again = await world.begin(conversation_id=turn.conversation_id, query="Yes")
    assert again.form is not None
    assert await state(world, form) is FormState.SUBMITTED


async def test_a_given_answer_is_final(world: World) -> None:
    """Another process has begun to run the turn, before who was told that it has not begun could end it."""
    turn, form = await asked(world)
    answer = await world.begin(conversation_id=turn.conversation_id)
    assert await world.turns.owned.arm(answer)
    assert await world.turns.owned.mark_running(answer, RunId("given")) is not None
    stopped = await world.turns.intake.stop(world.ann, answer.task_id, NOT_BEGUN)
    assert stopped is not None
    assert stopped.run_id == "given"
    assert await state(world, form) is FormState.SUBMITTED
    assert await world.turns.owned.finish(answer, Endings.always(completed(snapshot='{"after": 1}')))
    read = await world.turns.reader.result(answer.task_id)
    assert read is not None
    assert read.answered is not None
    with pytest.raises(FormAlreadySubmitted):
        await submit(world, form)


async def test_a_cancelled_form_is_not_found(world: World) -> None:
    turn, form = await asked(world)
    async with world.database.transaction() as connection:
        await cancel_form(connection, turn.conversation_id)
    assert await FormStore(world.database).find(world.app.id, form.token) is None
    with pytest.raises(NotFound):
        await submit(world, form)
    await expire(world, form)
    assert await world.turns.intake.expire_forms() == 0
    after = await world.begin(conversation_id=turn.conversation_id)
    assert after.form is None


async def test_the_question_of_a_deleted_conversation_does_not_expire(world: World) -> None:
    """Its expiry would begin a turn in a conversation that exists for nobody."""
    turn, form = await asked(world)
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    assert await state(world, form) is FormState.CANCELLED
    await expire(world, form)
    assert await world.turns.intake.expire_forms() == 0
    assert await world.turns.owned.adopt(expired=False) == []


async def test_the_run_of_an_expired_question_is_continued_once(world: World) -> None:
    _, kept = await asked(world)
    _, form = await asked(world)
    assert await world.turns.intake.expire_forms() == 0
    await expire(world, form)
    assert await world.turns.intake.expire_forms() == 1
    assert await world.turns.intake.expire_forms() == 0
    assert (await state(world, form), await state(world, kept)) == (FormState.TIMEOUT, FormState.OPEN)
    (turn,) = await world.turns.owned.adopt(expired=False)
    assert turn.form is not None
    assert (turn.form.answer, turn.snapshot) == (TIMED_OUT, '{"open": 1}')
    with pytest.raises(FormExpired):
        await submit(world, form)


async def test_one_of_many_concurrent_answers_wins(world: World) -> None:
    turn, form = await asked(world)

    async def attempt(number: int) -> Any:
        match number % 3:
            case 0:
                return await world.process().intake.submit(world.app.id, form.token, SUBMISSION)
            case 1:
                return await world.process().intake.expire_forms()
            case _:
                await expire(world, form)
                return None

    results = await asyncio.gather(*(attempt(number) for number in range(12)), return_exceptions=True)
    refused = [error for error in results if isinstance(error, GatewayError)]
    assert all(isinstance(error, FormAlreadySubmitted | FormExpired) for error in refused)
    await world.turns.intake.expire_forms()
    page = await world.messages.page(world.ann, turn.conversation_id, limit=10)
    assert len(page.items) == 2
    won = [result for result in results if isinstance(result, Turn)]
    assert len(won) == (await state(world, form) is FormState.SUBMITTED)
