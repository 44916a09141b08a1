"""Turns as an operator lists and stops them: of all apps and users, with what their rows tell about them."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.dialects import sqlite

from agent_gateway.causes import Cause
from agent_gateway.domain.events import GATEWAY_END, Endings, Result
from agent_gateway.domain.ids import RunId, TaskId, new_id
from agent_gateway.domain.turns import Caller, Outcome, Trace, Turn
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.turns.intake import StartedTurn
from agent_gateway.store.turns.listing import Stuck, TurnDetails, TurnFilter, TurnListing, Which
from agent_gateway.store.turns.operator import OperatorStop, stop_by_operator
from tests.support.store_world import METADATA, World, ask

pytestmark = pytest.mark.anyio

LEASE = 8.0
conversations = METADATA.tables["conversations"]


async def listed(world: World, which: Which = "all", **wanted: Any) -> list[str]:
    found = await TurnListing(world.database, LEASE).turns(TurnFilter(which=which, **wanted))
    return [turn.task_id for turn in found]


async def details(world: World, turn: Turn) -> TurnDetails:
    found = await TurnListing(world.database, LEASE).details(turn.task_id)
    assert found is not None
    return found


async def stuck(world: World, turn: Turn) -> Stuck | None:
    """Why it is stuck; the list of stuck turns says the same."""
    reason = (await details(world, turn)).stuck
    assert (turn.task_id in await listed(world, "stuck")) == (reason is not None)
    return reason


async def failed(world: World, cause: Cause) -> Turn:
    turn = await world.begin()
    await world.turns.owned.arm(turn)
    await world.turns.owned.mark_running(turn, RunId("run"))
    result = Result(Outcome.FAILED, (), (), GATEWAY_END, "provider_unavailable", cause=cause)
    assert await world.turns.owned.finish(turn, Endings.always(result))
    return turn


async def queued(world: World, first: Turn) -> Turn:
    """A turn that waits behind this one."""
    patient = replace(world.app, config=world.app.config.model_copy(update={"on_busy": "enqueue"}))
    turn = await world.begin(Caller(patient, "ann"), first.conversation_id)
    assert turn.state == "queued"
    return turn


async def test_turns_are_listed_by_where_they_are(world: World) -> None:
    completed, broken = await world.ended(), await failed(world, Cause("ReadTimeout", 504, "no answer"))
    running = await world.begin()
    waiting = await queued(world, running)
    elsewhere = await world.begin(world.stranger)
    everything = [turn.task_id for turn in (elsewhere, waiting, running, broken, completed)]
    assert await listed(world) == everything
    assert await listed(world, "live") == [elsewhere.task_id, running.task_id]
    assert await listed(world, "queued") == [waiting.task_id]
    assert await listed(world, "failed") == [broken.task_id]
    assert await listed(world, "stuck") == []
    assert await listed(world, limit=2) == everything[:2]
    [shown] = await TurnListing(world.database, LEASE).turns(TurnFilter(which="failed"))
    assert (shown.code, str(shown.cause)) == ("provider_unavailable", "ReadTimeout 504 (no answer)")
    assert (shown.app, shown.user, shown.outcome, shown.run_id) == ("one", "ann", "failed", "run")


async def test_turns_are_listed_by_app_user_request_and_time(world: World) -> None:
    old, mine = await world.ended(), await world.ended(world.ben)
    traced = replace(ask(), trace=Trace(request_id="request-1"))
    begun = await world.turns.intake.begin(world.stranger, traced)
    assert isinstance(begun, StartedTurn)
    await world.change(old, created_at=now_plus(-3000))
    assert await listed(world, app="two") == [begun.turn.task_id]
    assert await listed(world, user="ben") == [mine.task_id]
    assert await listed(world, app="two", user="ben") == []
    assert await listed(world, request_id="request-1") == [begun.turn.task_id]
    assert await listed(world, since=2900.0) == [begun.turn.task_id, mine.task_id]
    assert await listed(world, since=3100.0) == [begun.turn.task_id, mine.task_id, old.task_id]


async def test_a_turn_that_nobody_drives_is_stuck(world: World) -> None:
    """After two leases: before that another process may still adopt it."""
    turn = await world.begin()
    assert await stuck(world, turn) is None
    await world.change(turn, created_at=now_plus(-100), lease_until=now_plus(-LEASE * 1.5))
    assert await stuck(world, turn) is None
    assert await listed(world, "live") == []
    await world.change(turn, lease_until=now_plus(-LEASE * 2.5))
    assert await stuck(world, turn) is Stuck.LEASE
    await world.change(turn, lease_until=None, owner=None)
    assert await stuck(world, turn) is Stuck.NO_OWNER
    await world.change(turn, owner=world.owner, lease_until=now_plus(5), deadline_at=now_plus(-20))
    assert await stuck(world, turn) is Stuck.DEADLINE


async def test_a_queued_turn_is_stuck_when_no_turn_is_before_it(world: World) -> None:
    first = await world.begin()
    waiting = await queued(world, first)
    await world.change(waiting, created_at=now_plus(-1000), deadline_at=now_plus(-500))
    assert await stuck(world, waiting) is None
    await world.change(first, state="ended", outcome="completed")
    assert await stuck(world, waiting) is Stuck.QUEUE


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        (TurnFilter(which="live"), {"uq_turns_active"}),
        (TurnFilter(which="queued"), {"ix_turns_queued"}),
        (TurnFilter(which="stuck"), {"uq_turns_active", "ix_turns_queued"}),
        (TurnFilter(which="failed", since=60.0), {"sqlite_autoindex_turns_1"}),
    ],
)
async def test_no_list_reads_all_turns(world: World, wanted: TurnFilter, indexes: set[str]) -> None:
    query = TurnListing(world.database, LEASE).query(wanted)
    sql = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    async with world.database.reading() as session:
        plan = [row.detail for row in await session.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
    scanned = [step.split(" USING INDEX ") for step in plan if step.startswith("SCAN turns")]
    assert {index.split()[0] for _, index in scanned} == indexes


async def test_details_of_a_turn_have_numbers_and_no_texts(world: World) -> None:
    turn = await world.ended()
    await world.execute(
        update(conversations).values(deleted_at=now_plus()).where(conversations.c.id == turn.conversation_id)
    )
    found = await details(world, turn)
    assert (found.app, found.app_version, found.user, found.seq) == ("one", 1, "ann", 1)
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (3, 0, 5)
    assert (found.steps, found.query_bytes, found.answer_bytes) == (2, 2, len("Hello, world"))
    assert found.conversation_deleted
    for part in ("Hello", "hm", "clock", "12:00"):
        assert part not in repr(found)
    assert await TurnListing(world.database, LEASE).details(TaskId(new_id())) is None


async def test_an_operator_stops_a_turn_of_any_caller(world: World) -> None:
    """R9: one without a run ends at once, and the next is planned; the owner of any other sees it."""
    waits = await world.begin()
    behind = await queued(world, waits)
    assert await stop_by_operator(world.database, waits.task_id, 600) == OperatorStop(ended=True)
    row = await world.row(waits)
    assert (row.outcome, row.stop_reason) == ("stopped", "operator")
    assert [turn.task_id for turn in await world.process().owned.adopt(expired=False)] == [behind.task_id]
    running = await world.begin(world.stranger)
    await world.turns.owned.arm(running)
    await world.turns.owned.mark_running(running, RunId("run"))
    assert await stop_by_operator(world.database, running.task_id, 600) == OperatorStop()
    assert await world.turns.owned.heartbeat([running]) == {running.task_id: True}


async def test_an_operator_is_told_what_was_before_the_stop(world: World) -> None:
    turn = await world.begin()
    await world.turns.owned.arm(turn)
    await world.turns.intake.stop(world.ann, turn.task_id)
    assert await stop_by_operator(world.database, turn.task_id, 600) == OperatorStop(asked_before="user")
    assert (await world.row(turn)).stop_reason == "user"
    ended = await world.ended()
    async with world.unchanged():
        before = await stop_by_operator(world.database, ended.task_id, 600)
        assert before == OperatorStop(ended_before=Outcome.COMPLETED)
        assert await stop_by_operator(world.database, TaskId(new_id()), 600) is None
