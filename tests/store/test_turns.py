"""A turn's writes while it runs: arm, running, heartbeat, stop, and turns that were left behind."""

import asyncio

import msgspec
import pytest
from pydantic import ValidationError
from sqlalchemy import event, update

from agent_gateway.domain.events import GATEWAY_END, Endings, rest_of
from agent_gateway.domain.ids import RunId, TaskId, new_id
from agent_gateway.domain.turns import Outcome, Turn, TurnState
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.turns.reader import TurnView
from agent_gateway.store.turns.stopping import Stopped
from tests.support.store_world import World, app_versions, completed

pytestmark = pytest.mark.anyio

RUN = RunId("run-1")


async def in_state(world: World, state: str) -> Turn:
    turn = await world.begin()
    if state != "planned":
        assert await world.turns.owned.arm(turn)
    if state == "running":
        assert await world.turns.owned.mark_running(turn, RUN) is not None
    return turn


# --- arm and running


async def test_a_turn_moves_from_planned_to_sending_to_running(world: World) -> None:
    turn = await world.begin()
    assert await world.turns.owned.arm(turn)
    assert (await world.row(turn)).state == TurnState.SENDING
    assert await world.turns.owned.mark_running(turn, RUN) is not None
    row = await world.row(turn)
    assert (row.state, row.run_id) == (TurnState.RUNNING, RUN)


async def test_arm_and_running_can_be_repeated_after_a_lost_answer(world: World) -> None:
    turn = await world.begin()
    assert await world.turns.owned.arm(turn)
    assert await world.turns.owned.arm(turn)
    assert await world.turns.owned.mark_running(turn, RUN) is not None
    assert await world.turns.owned.mark_running(turn, RUN) is not None


async def test_states_are_neither_skipped_nor_taken_back(world: World) -> None:
    turn = await world.begin()
    assert not await world.turns.owned.mark_running(turn, RUN), "not armed"
    await world.turns.owned.arm(turn)
    await world.turns.owned.mark_running(turn, RUN)
    async with world.unchanged():
        assert not await world.turns.owned.arm(turn)


async def test_i10_a_turn_that_was_stopped_is_not_sent(world: World) -> None:
    turn = await world.begin()
    await world.change(turn, stop_at=now_plus())
    assert not await world.turns.owned.arm(turn)


async def test_a_stop_while_sending_still_takes_the_run_id(world: World) -> None:
    turn = await in_state(world, "sending")
    await world.turns.intake.stop(world.ann, turn.task_id)
    assert not await world.turns.owned.arm(turn)
    assert await world.turns.owned.mark_running(turn, RUN) is not None
    assert await world.turns.intake.stop(world.ann, turn.task_id) == Stopped(turn.task_id, RUN, ended=False)


@pytest.mark.parametrize("lost_by", ["owner", "epoch", "end"])
async def test_i9_a_former_owner_changes_nothing(world: World, lost_by: str) -> None:
    planned, sending = await in_state(world, "planned"), await in_state(world, "sending")
    process = world.turns
    if lost_by == "owner":
        process = world.process()
    for turn in (planned, sending):
        if lost_by == "epoch":
            await world.change(turn, epoch=2)
        if lost_by == "end":
            await world.fail(turn)
    async with world.unchanged():
        assert not await process.owned.arm(planned)
        assert await process.owned.mark_running(sending, RUN) is None


# --- heartbeat


async def test_a_heartbeat_renews_own_leases_and_reports_stops(world: World) -> None:
    mine, stopped = await in_state(world, "running"), await in_state(world, "sending")
    newer_epoch, ended = await in_state(world, "planned"), await world.ended()
    theirs = await world.begun_by(world.process(owner := new_id()))
    await world.turns.intake.stop(world.ann, stopped.task_id)
    await world.change(newer_epoch, epoch=2)
    every = [mine, stopped, newer_epoch, ended, theirs]
    for turn in (mine, stopped, newer_epoch, theirs):
        await world.expire(turn)
    left_alone = [await world.row(turn) for turn in (newer_epoch, ended, theirs)]

    assert await world.turns.owned.heartbeat(every) == {mine.task_id: False, stopped.task_id: True}

    assert [await world.row(turn) for turn in (newer_epoch, ended, theirs)] == left_alone
    assert (await world.row(mine)).lease_until > (await world.row(theirs)).lease_until
    assert await world.process(owner).owned.heartbeat(every) == {theirs.task_id: False}


async def test_a_heartbeat_without_turns_does_nothing(world: World) -> None:
    assert await world.turns.owned.heartbeat([]) == {}


async def test_a_heartbeat_renews_more_turns_than_one_statement_takes(world: World) -> None:
    """More than one statement takes: the first and the last are renewed."""
    first, last = await world.begin(), await world.begin()
    held = [first, *(msgspec.structs.replace(first, task_id=TaskId(new_id())) for _ in range(1000)), last]
    assert await world.turns.owned.heartbeat(held) == {first.task_id: False, last.task_id: False}


async def test_i4_a_renewed_turn_does_not_expire(world: World) -> None:
    turn = await in_state(world, "running")
    await world.expire(turn)
    await world.turns.owned.heartbeat([turn])
    assert await world.process().owned.adopt(expired=True) == []


# --- stop


@pytest.mark.parametrize("state", ["queued", "planned"])
async def test_a_stopped_turn_that_was_not_sent_ends_at_once(world: World, state: str) -> None:
    turn = await world.begin()
    await world.change(turn, state=state)
    assert await world.turns.intake.stop(world.ann, turn.task_id) == Stopped(turn.task_id, None, ended=True)
    row = await world.row(turn)
    assert (row.state, row.outcome, row.error_code) == (TurnState.ENDED, Outcome.STOPPED, None)
    assert (row.stop_at is not None, row.stop_reason) == (True, "user")
    assert not await world.turns.owned.arm(turn)
    result = await world.turns.reader.result(turn.task_id)
    assert result is not None
    assert (result.outcome, result.answer, result.end_position) == (Outcome.STOPPED, "", GATEWAY_END)
    assert len(rest_of(result, 0)) == 2


@pytest.mark.parametrize(("state", "run_id"), [("sending", None), ("running", RUN)])
async def test_a_stopped_turn_that_was_sent_is_marked(world: World, state: str, run_id: RunId | None) -> None:
    turn = await in_state(world, state)
    assert await world.turns.intake.stop(world.ann, turn.task_id, "user") == Stopped(
        turn.task_id, run_id, ended=False
    )
    row = await world.row(turn)
    assert (row.state, row.outcome, row.stop_reason) == (state, None, "user")
    first_asked = row.stop_at
    assert await world.turns.intake.stop(world.ann, turn.task_id) == Stopped(
        turn.task_id, run_id, ended=False
    ), "again is fine"
    assert (await world.row(turn)).stop_at == first_asked, "set once"


async def test_a_stop_works_from_any_process(world: World) -> None:
    turn = await in_state(world, "running")
    assert await world.process().intake.stop(world.ann, turn.task_id) == Stopped(
        turn.task_id, RUN, ended=False
    )
    assert await world.turns.owned.heartbeat([turn]) == {turn.task_id: True}


async def test_a_stop_of_an_ended_turn_does_nothing(world: World) -> None:
    turn = await world.ended()
    async with world.unchanged():
        assert await world.turns.intake.stop(world.ann, turn.task_id) is None


async def test_i11_a_stranger_cannot_stop_a_turn(world: World) -> None:
    turn = await in_state(world, "running")
    await world.ended(world.ben)
    async with world.unchanged():
        assert await world.turns.intake.stop(world.ben, turn.task_id) is None
        assert await world.turns.intake.stop(world.stranger, turn.task_id) is None
        assert await world.turns.intake.stop(world.ann, TaskId(new_id())) is None


# --- turns that were left behind


async def test_i4_a_starting_process_adopts_the_turns_of_the_one_before(world: World) -> None:
    left = [await in_state(world, state) for state in ("planned", "sending", "running")]
    stopped, ownerless, ended = await in_state(world, "running"), await world.begin(), await world.ended()
    await world.turns.intake.stop(world.ann, stopped.task_id)
    await world.change(ownerless, owner=None)
    ended_row = await world.row(ended)
    starting = world.process(owner := new_id())
    mine = await world.begun_by(starting)

    adopted = {turn.task_id: turn for turn in await starting.owned.adopt(expired=True, everyone=True)}

    assert adopted.keys() == {turn.task_id for turn in (*left, stopped, ownerless)}
    assert {turn.epoch for turn in adopted.values()} == {2}
    assert [adopted[turn.task_id].state for turn in left] == ["planned", "sending", "running"]
    assert adopted[stopped.task_id].stop_asked
    assert (await world.row(left[0])).owner == owner
    # A release is no death: only turns taken from an owner count.
    assert [(await world.row(turn)).adoptions for turn in (left[0], ownerless)] == [1, 0]
    assert (await world.row(mine)).epoch == 1
    assert await world.row(ended) == ended_row
    assert await starting.owned.adopt(expired=True, everyone=True) == []


async def test_i4_a_turn_without_an_owner_is_adopted_by_any_process(world: World) -> None:
    held, expired, ownerless = await world.begin(), await in_state(world, "running"), await world.begin()
    await world.expire(expired)
    await world.change(ownerless, owner=None)

    cautious = await world.process().owned.adopt(expired=False)
    assert [turn.task_id for turn in cautious] == [ownerless.task_id]
    (taken,) = await (process := world.process()).owned.adopt(expired=True)

    assert (taken.task_id, taken.run_id, taken.query) == (expired.task_id, RUN, expired.query)
    assert (await world.row(held)).epoch == 1
    assert await world.turns.owned.mark_running(expired, RUN) is None
    assert await world.turns.owned.finish(expired, Endings.always(completed())) is None
    assert await process.owned.finish(taken, Endings.always(completed())) == completed()


async def test_a_release_adopts_turns_of_its_own_fold_or_the_one_before(world: World) -> None:
    """What another release folds is left to it until it is late, and then only ended (R17)."""
    turns = {
        version: await world.begun_by(world.process(folds=(version, version - 1))) for version in (2, 3, 4)
    }
    for turn in turns.values():
        await world.expire(turn)
    assert {version: (await world.row(turn)).fold_version for version, turn in turns.items()} == {
        2: 2,
        3: 3,
        4: 4,
    }
    process = world.process(folds=(3, 2))
    taken = {turn.task_id: turn for turn in await process.owned.adopt(expired=True)}
    assert taken.keys() == {turns[2].task_id, turns[3].task_id}
    assert all(turn.runnable for turn in taken.values())
    assert [taken[turns[version].task_id].fold_version for version in (2, 3)] == [2, 3]
    await world.change(turns[4], deadline_at=now_plus(-1))
    [late] = await process.owned.adopt(expired=True)
    assert (late.task_id, late.runnable) == (turns[4].task_id, False)


async def test_a_turn_of_an_unreadable_app_ends_when_it_is_late(
    world: World,
) -> None:
    """Its configuration is that of a newer release, which was rolled back."""
    turn = await in_state(world, "running")
    await world.expire(turn)
    await world.execute(update(app_versions).values(config='{"name": "Newer", "mode": "unheard-of"}'))
    assert await world.process().owned.adopt(expired=True) == []
    await world.expire(turn)
    await world.change(turn, deadline_at=now_plus(-1))
    [late] = await (process := world.process()).owned.adopt(expired=True)
    assert (late.task_id, late.runnable, late.run_id) == (turn.task_id, False, RUN)
    assert await process.owned.finish(late, Endings.always(completed())) == completed()


async def test_one_of_many_concurrent_sweeps_adopts_a_turn(world: World) -> None:
    lost = [await world.begin() for _ in range(5)]
    for turn in lost:
        await world.expire(turn)
    swept = await asyncio.gather(*(world.process().owned.adopt(expired=True) for _ in range(4)))
    assert sorted(turn.task_id for found in swept for turn in found) == sorted(turn.task_id for turn in lost)


async def test_a_turn_that_kills_its_owners_is_not_run_again(world: World) -> None:
    turn = await in_state(world, "running")
    for expected in (True, True, True, True, False):
        await world.expire(turn)
        (taken,) = await world.process().owned.adopt(expired=True)
        assert taken.runnable is expected


async def test_a_released_turn_continues_from_its_checkpoint(world: World) -> None:
    turn, sending = await in_state(world, "running"), await in_state(world, "sending")
    await world.turns.owned.save_checkpoints([(turn, b"early")])
    assert await world.turns.owned.release([(turn, b"state"), (sending, None)]) == {turn.task_id}
    assert await world.turns.owned.finish(turn, Endings.always(completed())) is None
    (taken,) = await world.process().owned.adopt(expired=False)
    assert (taken.task_id, taken.checkpoint, taken.epoch) == (turn.task_id, b"state", 3)


# --- view


async def test_a_view_has_the_fields_of_the_frames(world: World) -> None:
    turn = await world.begin()
    for ended in (False, True):
        view = await world.turns.reader.view(world.app.id, "ann", turn.task_id)
        assert view is not None
        assert (view.task_id, view.conversation_id) == (turn.task_id, turn.conversation_id)
        assert (view.message_id, view.created_at) == (turn.message_id, turn.created_at)
        assert view.ended is ended
        await world.turns.intake.stop(world.ann, turn.task_id)


async def test_i11_many_that_ask_at_once_see_their_own_turns_only(world: World) -> None:
    """They share one query."""
    callers = [world.ann, world.ben, world.stranger]
    task_ids = [(await world.ended(caller)).task_id for caller in callers]
    asked = [(caller, task_id) for caller in callers for task_id in task_ids] * 5
    queries: list[str] = []

    def note(_connection: object, _cursor: object, query: str, *_: object) -> None:
        queries.append(query)

    event.listen(world.database._connections.engines[0].sync_engine, "before_cursor_execute", note)
    view = world.turns.reader.view
    seen = await asyncio.gather(*(view(caller.app.id, caller.user, task_id) for caller, task_id in asked))
    own = dict(zip(task_ids, callers, strict=True))
    for (caller, task_id), found in zip(asked, seen, strict=True):
        assert (found.task_id if found else None) == (task_id if own[task_id] is caller else None)
    assert sum("app_versions" in query for query in queries) == 1


async def test_a_turn_of_an_unreadable_app_harms_no_other_that_is_asked_for(world: World) -> None:
    """Not even for a stranger who asks for it: the answer is that of a turn that does not exist."""
    readable, unreadable = await world.ended(), await world.ended(world.stranger)
    await world.execute(
        update(app_versions)
        .where(app_versions.c.app_id == world.stranger.app.id)
        .values(config='{"name": "Newer", "mode": "unheard-of"}')
    )
    view = world.turns.reader.view
    app, other = world.ann.app.id, world.stranger.app.id
    asked = [(app, readable.task_id), (app, unreadable.task_id), (other, unreadable.task_id)]
    own, strange, failed = await asyncio.gather(
        *(view(app_id, "ann", task_id) for app_id, task_id in asked), return_exceptions=True
    )
    assert isinstance(own, TurnView)
    assert strange is None
    assert isinstance(failed, ValidationError)


async def test_i11_a_stranger_cannot_see_a_turn(world: World) -> None:
    turn = await world.ended()
    for caller in (world.ben, world.stranger):
        await world.ended(caller)
        assert await world.turns.reader.view(caller.app.id, caller.user, turn.task_id) is None
    assert await world.turns.reader.view(world.app.id, "ann", TaskId(new_id())) is None
