"""The outbox in the rows: written with its cause, taken by one process, kept until it is done."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from agent_gateway.domain.events import Endings
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Caller, Turn
from agent_gateway.errors import NotFound
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import outbox, snapshots
from agent_gateway.store.turns.outbox import HOLD_SECONDS, OutboxKind
from agent_gateway.store.turns.stores import TurnStores
from tests.support.store_world import World, completed, interrupted

pytestmark = pytest.mark.anyio

RUN = RunId("run")
SNAPSHOT = '{"layers": []}'


async def running(world: World, conversation_id: str | None = None) -> tuple[TurnStores, Turn]:
    """A turn whose run is known, and the process that holds it."""
    process = world.turns
    turn = await world.begin(conversation_id=conversation_id)
    assert await process.owned.arm(turn)
    assert await process.owned.mark_running(turn, RUN) is not None
    return process, turn


async def count(world: World, table: Any) -> int:
    async with world.database.reading() as session:
        return int((await session.execute(select(func.count()).select_from(table))).scalar_one())


async def make_due(world: World) -> None:
    await world.execute(update(outbox).values(next_try_at=now_plus(-1)))


async def test_a_completed_turn_writes_no_outbox_entry(world: World) -> None:
    await world.ended(snapshot=SNAPSHOT)
    process, turn = await running(world)
    await process.owned.finish(turn, Endings.always(completed()))
    planned = await world.begin()
    await process.intake.stop(world.ann, planned.task_id)
    assert await count(world, outbox) == 0
    assert not process.outbox.written.is_set()


async def test_an_end_by_the_gateway_writes_a_cancel_entry(world: World) -> None:
    """Not at once: the process that made the end tries first, and writes down the result."""
    process, turn = await running(world)
    await process.owned.finish(turn, Endings.always(interrupted()))
    other = world.process().outbox
    assert await other.claim(5) == []
    assert not process.outbox.written.is_set()
    await process.outbox.cancel_tried(turn, RUN, done=False)
    assert process.outbox.written.is_set()
    [entry] = await other.claim(5)
    assert (entry.kind, entry.run_id, entry.task_id, entry.tries) == (
        OutboxKind.CANCEL_RUN,
        RUN,
        turn.task_id,
        1,
    )
    await process.outbox.cancel_tried(turn, RUN, done=True)
    assert await count(world, outbox) == 0


async def test_an_entry_taken_by_one_process_is_hidden_from_others(world: World) -> None:
    turn = await world.ended()
    one, two = world.process().outbox, world.process().outbox
    await one.ask_suggestions(turn.task_id)
    await one.ask_suggestions(turn.task_id)
    [first] = await one.claim(5)
    assert await two.claim(5) == []
    await make_due(world)
    [second] = await two.claim(5)
    assert (second.id, second.tries) == (first.id, 2)
    await one.reschedule([first], 0.0)
    assert await one.claim(5) == [], "it is not the first one's any more"
    await two.reschedule([second], HOLD_SECONDS)
    assert await two.claim(5) == []
    await make_due(world)
    [third] = await one.claim(5)
    assert third.answered is not None
    assert (third.answered.turn.query, third.answered.answer) == ("Hi", "Hello, world")
    await one.complete(third, ["One?"])
    assert await count(world, outbox) == 0
    await one.ask_suggestions(turn.task_id)
    assert await count(world, outbox) == 0, "they are there"


async def test_no_more_entries_are_taken_than_requested(world: World) -> None:
    ours = world.process().outbox
    for _ in range(3):
        await ours.ask_suggestions((await world.ended()).task_id)
    assert [len(await ours.claim(2)) for _ in range(3)] == [2, 1, 0]


async def test_deleting_an_ended_conversation_writes_a_cleanup_entry(world: World) -> None:
    turn = await world.ended(snapshot=SNAPSHOT)
    assert await world.turns.intake.delete(world.ann, turn.conversation_id) == []
    ours = world.process().outbox
    [entry] = await ours.claim(5)
    assert (entry.kind, entry.task_id) == (OutboxKind.CLOSE_SESSION, turn.task_id)
    assert entry.answered is not None
    assert entry.answered.turn.snapshot == SNAPSHOT
    await ours.complete(entry)
    assert (await count(world, outbox), await count(world, snapshots)) == (0, 0)


async def test_a_turn_running_at_the_delete_writes_the_cleanup_entry_at_its_end(world: World) -> None:
    """Delete or end: the one that commits last closes the session, of the turn that it comes from then."""
    first = await world.ended(snapshot=SNAPSHOT)
    process, turn = await running(world, first.conversation_id)
    [stopped] = await process.intake.delete(world.ann, turn.conversation_id)
    assert (stopped.task_id, stopped.run_id) == (turn.task_id, RUN)
    assert (await world.row(turn)).stop_reason == "deleted"
    assert await count(world, outbox) == 0
    newer = '{"layers": [], "newer": 1}'
    await process.owned.finish(turn, Endings.always(completed(snapshot=newer)))
    assert process.outbox.written.is_set()
    [entry] = await world.process().outbox.claim(5)
    assert entry.task_id == turn.task_id
    assert entry.answered is not None
    assert entry.answered.turn.snapshot == newer


async def test_deleting_ends_planned_and_queued_turns(world: World) -> None:
    """A planned turn and those behind it end with the delete, and none of them is let go."""
    first = await world.ended(snapshot=SNAPSHOT)
    patient = world.app.config.model_copy(update={"on_busy": "enqueue"})
    ann = Caller(replace(world.app, config=patient), "ann")
    turns = [await world.begin(ann, first.conversation_id) for _ in range(3)]
    assert [(await world.row(turn)).state for turn in turns] == ["planned", "queued", "queued"]
    stopped = await world.turns.intake.delete(world.ann, first.conversation_id)
    assert [one.task_id for one in stopped] == [turn.task_id for turn in turns]
    assert [(await world.row(turn)).outcome for turn in turns] == ["stopped"] * 3
    [entry] = await world.process().outbox.claim(5)
    assert (entry.kind, entry.task_id) == (OutboxKind.CLOSE_SESSION, first.task_id)
    assert await world.process().owned.adopt(expired=True) == []


async def test_only_its_user_deletes_a_conversation_and_only_once(world: World) -> None:
    turn = await world.ended(snapshot=SNAPSHOT)
    async with world.unchanged():
        for caller in (world.ben, world.stranger):
            with pytest.raises(NotFound):
                await world.turns.intake.delete(caller, turn.conversation_id)
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    async with world.unchanged():
        with pytest.raises(NotFound):
            await world.turns.intake.delete(world.ann, turn.conversation_id)
        with pytest.raises(NotFound):
            await world.begin(conversation_id=turn.conversation_id)
        assert await world.turns.intake.stop(world.ann, turn.task_id) is None
        assert await world.turns.reader.view(world.app.id, "ann", turn.task_id) is None
        assert await world.turns.reader.first_answered_turn(world.ann, turn.conversation_id) is None
