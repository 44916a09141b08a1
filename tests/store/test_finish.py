"""Finish: one commit of all that a turn produced, or nothing at all."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from agent_gateway.domain.events import GATEWAY_END, Endings, LLMChunk, Result
from agent_gateway.domain.ids import RunId, new_id
from agent_gateway.domain.turns import Outcome, Step, Turn, Usage
from agent_gateway.errors import NotFound
from tests.support.store_world import METADATA, World, completed, interrupted

pytestmark = pytest.mark.anyio


async def snapshot_of(world: World, turn: Turn) -> str | None:
    """The snapshot that the next turn would continue from."""
    table = METADATA.tables["snapshots"]
    async with world.database.reading() as session:
        found = await session.execute(
            select(table.c.data).where(table.c.conversation_id == turn.conversation_id)
        )
        return found.scalar_one_or_none()


async def test_i2_all_of_a_turn_is_in_one_commit(world: World) -> None:
    turn = await world.begin()
    before = (await world.conversations.page(world.ann, limit=1, sort_by="created_at")).items[0]
    await world.turns.owned.arm(turn)
    await world.turns.owned.mark_running(turn, RunId("run"))
    result = completed("Hello, ", "world 😀", snapshot='{"turns": 1}')

    assert await world.turns.owned.finish(turn, Endings.always(result)) == result

    row = await world.row(turn)
    assert (row.state, row.outcome, row.error_code) == ("ended", "completed", None)
    assert (row.end_position, row.lease_until, row.run_id) == (result.end_position, None, "run")
    assert row.ended_at >= row.created_at
    (message,) = (await world.messages.page(world.ann, turn.conversation_id, limit=1)).items
    assert (message.answer, message.outcome) == ("Hello, world 😀", Outcome.COMPLETED)
    assert (message.usage, tuple(message.steps)) == (result.usage, result.steps)
    assert await snapshot_of(world, turn) == '{"turns": 1}'
    after = (await world.conversations.page(world.ann, limit=1, sort_by="created_at")).items[0]
    assert after.updated_at > before.updated_at
    assert after.created_at == before.created_at


@pytest.mark.parametrize(
    "result",
    [
        completed(),
        completed("😀", "", "a\u2028b", "x" * 70_000),
        Result(Outcome.COMPLETED, (), (), 2, usage=Usage()),
        Result(Outcome.STOPPED, (LLMChunk(1, "Hel"),), (), 3),
        Result(Outcome.STOPPED, (LLMChunk(1, "Hel"),), (), GATEWAY_END),
        Result(Outcome.FAILED, (LLMChunk(900, "part"),), (Step(1, 4),), GATEWAY_END, "turn_timeout"),
        Result(Outcome.FAILED, (), (), 2, "rate_limit_error", Usage(total_tokens=1)),
        Result(
            Outcome.COMPLETED,
            tuple(LLMChunk(number * 3, f" word{number}") for number in range(5000)),
            (),
            20_000,
        ),
    ],
    ids=["plain", "text", "empty", "stopped", "cut", "timeout", "failed", "long"],
)
async def test_a_finished_turn_is_read_back(world: World, result: Result) -> None:
    turn = await world.begin()
    assert await world.turns.reader.result(turn.task_id) is None, "not yet"
    assert await world.turns.owned.finish(turn, Endings.always(result)) == result
    assert await world.process().reader.result(turn.task_id) == result


@pytest.mark.parametrize("asked", [False, True])
async def test_a_stop_before_the_commit_picks_the_stopped_end(world: World, asked: bool) -> None:
    turn = await world.begin()
    await world.turns.owned.arm(turn)
    if asked:
        await world.turns.intake.stop(world.ann, turn.task_id)
    normal, if_stopped = completed(), interrupted(stop=True)
    assert await world.turns.owned.finish(turn, Endings(normal, if_stopped)) == (
        if_stopped if asked else normal
    )


@pytest.mark.parametrize("lost_by", ["owner", "epoch", "stop", "expiry", "finish"])
async def test_i9_a_finish_by_a_former_owner_changes_nothing(world: World, lost_by: str) -> None:
    first = await world.ended(snapshot="old")
    turn = await world.begin(conversation_id=first.conversation_id)
    process = world.turns
    match lost_by:
        case "owner":
            process = world.process()
        case "epoch":
            await world.change(turn, epoch=2)
        case "stop":
            await world.turns.intake.stop(world.ann, turn.task_id)
        case "expiry":
            await world.fail(turn)
        case _:
            await world.turns.owned.finish(turn, Endings.always(completed(snapshot="first")))
    async with world.unchanged():
        assert await process.owned.finish(turn, Endings.always(completed(snapshot="new"))) is None


async def test_i9_one_of_two_concurrent_finishes_counts(world: World) -> None:
    turn = await world.begin()
    results = await asyncio.gather(
        *(
            world.turns.owned.finish(turn, Endings.always(completed(text, snapshot=text)))
            for text in ("one", "two", "three")
        )
    )
    (told,) = [result for result in results if result is not None]
    assert await snapshot_of(world, turn) == told.answer
    stored = await world.turns.reader.result(turn.task_id)
    assert stored is not None
    assert stored.answer == told.answer


async def test_a_result_that_the_database_refuses_writes_nothing(world: World) -> None:
    turn = await world.begin()
    one_number_twice = replace(completed(), steps=(Step(1, 2), Step(1, 4)))
    async with world.unchanged():
        with pytest.raises(IntegrityError):
            await world.turns.owned.finish(turn, Endings.always(one_number_twice))
    assert await world.turns.owned.finish(turn, Endings.always(completed()))


# --- the session snapshot


async def test_i7_a_turn_without_a_snapshot_keeps_the_old_one(world: World) -> None:
    first = await world.ended(snapshot="of the first")
    await world.ended(conversation_id=first.conversation_id)
    third = await world.begin(conversation_id=first.conversation_id)
    assert third.snapshot == "of the first"
    await world.turns.owned.finish(third, Endings.always(Result(Outcome.FAILED, (), (), 2, "turn_timeout")))
    assert await snapshot_of(world, first) == "of the first"


async def test_i7_the_snapshot_moves_forward(world: World) -> None:
    first = await world.ended(snapshot="of the first")
    second = await world.ended(conversation_id=first.conversation_id, snapshot="of the second")
    assert await snapshot_of(world, second) == "of the second"


async def test_i7_the_snapshot_never_moves_back(world: World) -> None:
    """A turn of an earlier number ends last; the index allows no such thing, the write does not either."""
    first = await world.ended()
    await world.change(first, state="queued", outcome=None)
    await world.ended(conversation_id=first.conversation_id, snapshot="of the second")
    # Its queued row was let go when the second ended: ours again, as it was.
    await world.change(first, state="running", owner=world.owner, epoch=1)
    assert await world.turns.owned.finish(
        first, Endings.always(Result(Outcome.COMPLETED, (), (), 2, snapshot="of the first"))
    )
    assert await snapshot_of(world, first) == "of the second"


async def test_a_snapshot_is_kept_byte_for_byte(world: World) -> None:
    raw = '{ "b":1,"a" : 1.10, "a":2, "\\u0000": "\\ud800", "é": "😀"}' + " " * 300_000
    turn = await world.ended(snapshot=raw)
    assert (await world.begin(conversation_id=turn.conversation_id)).snapshot == raw


async def test_conversations_have_separate_snapshots(world: World) -> None:
    one, two = await world.ended(snapshot="one"), await world.ended(snapshot="two")
    assert (await snapshot_of(world, one), await snapshot_of(world, two)) == ("one", "two")
    assert (await world.begin()).snapshot is None


async def test_an_unknown_turn_has_no_result(world: World) -> None:
    turn = await world.ended()
    assert await world.turns.reader.result(turn.task_id) is not None
    with pytest.raises(NotFound):
        await world.turns.reader.result(type(turn.task_id)(new_id()))
