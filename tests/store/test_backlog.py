"""What waits in the database is counted, and its age is the database's."""

from dataclasses import replace

import pytest
from sqlalchemy import update

from agent_gateway.domain.turns import Caller
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import outbox, turns
from agent_gateway.store.turns.backlog import BacklogReader
from tests.support.store_world import World

pytestmark = pytest.mark.anyio


async def test_queued_turns_are_counted_and_the_oldest_of_them_has_an_age(world: World) -> None:
    reader = BacklogReader(world.database)
    assert (await reader.read()).queued_seconds == 0
    patient = Caller(
        replace(world.app, config=world.app.config.model_copy(update={"on_busy": "enqueue"})), "ann"
    )
    first = await world.begin(patient)
    assert (await reader.read()).queued == 0
    for ago in (50, 100):
        queued = await world.begin(patient, first.conversation_id)
        at = now_plus(-ago)
        await world.execute(update(turns).where(turns.c.id == queued.task_id).values(created_at=at))
    await world.execute(update(turns).where(turns.c.id == first.task_id).values(created_at=now_plus(-500)))
    backlog = await reader.read()
    assert backlog.queued == 2
    assert 100 <= backlog.queued_seconds < 200


async def test_outbox_entries_are_counted_by_kind_and_the_oldest_has_an_age(world: World) -> None:
    reader = BacklogReader(world.database)
    turn = await world.ended(snapshot='{"layers": []}')
    assert (await reader.read()).oldest_seconds == 0
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    await world.execute(update(outbox).values(created_at=now_plus(-100)))
    backlog = await reader.read()
    assert {kind: count for kind, count in backlog.outbox.items() if count} == {"close_session": 1}
    assert len(backlog.outbox) == 4
    assert 100 <= backlog.oldest_seconds < 200
