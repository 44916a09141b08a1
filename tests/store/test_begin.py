"""Begin: a turn's first rows, who may begin, and what an Idempotency-Key makes of a second post."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

from agent_gateway.domain.ids import new_id
from agent_gateway.domain.turns import Caller, TurnState
from agent_gateway.errors import ConversationBusy, IdempotencyConflict, NotFound
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.turns.intake import Repeated, StartedTurn
from tests.support.store_world import METADATA, World, ask

pytestmark = pytest.mark.anyio

TABLES = METADATA.tables


async def count(world: World, table: str) -> int:
    async with world.database.reading() as session:
        found = await session.execute(select(func.count()).select_from(TABLES[table]))
        return found.scalar_one()


async def test_a_first_message_creates_a_conversation(world: World) -> None:
    turn = await world.begin(query="  What is\nthe time? ")
    assert (turn.user, turn.query, turn.inputs) == ("ann", "  What is\nthe time? ", {"name": "Ann"})
    assert (turn.snapshot, turn.epoch, turn.seconds_left) == (None, 1, 600.0)
    row = await world.row(turn)
    assert (row.state, row.owner, row.epoch, row.seq) == (TurnState.PLANNED, world.owner, 1, 1)
    assert row.app_version_id == world.app.version_id
    assert (row.message_id, row.conversation_id) == (turn.message_id, turn.conversation_id)
    assert 0 < (row.lease_until - row.created_at).total_seconds() < 120
    (conversation,) = (await world.conversations.page(world.ann, limit=20, sort_by="created_at")).items
    assert (conversation.name, conversation.introduction) == ("What is the time?", "Welcome")
    assert int(conversation.created_at.timestamp()) == turn.created_at


async def test_i1_the_message_is_committed_when_begin_returns(world: World) -> None:
    turn = await world.begin(query="Hi")
    (message,) = (await world.messages.page(world.ann, turn.conversation_id, limit=20)).items
    assert (message.id, message.query, message.answer, message.outcome) == (turn.message_id, "Hi", "", None)


async def test_a_conversation_has_a_short_name(world: World) -> None:
    await world.begin(query="x" * 500)
    (conversation,) = (await world.conversations.page(world.ann, limit=20, sort_by="created_at")).items
    assert conversation.name == "x" * 63 + "…"


async def test_the_next_turn_starts_from_the_snapshot(world: World) -> None:
    first = await world.ended(snapshot='{"history": ["Hi"]}')
    second = await world.begin(conversation_id=first.conversation_id)
    assert second.conversation_id == first.conversation_id
    assert second.snapshot == '{"history": ["Hi"]}'
    assert (await world.row(second)).seq == 2
    assert await count(world, "conversations") == 1


async def test_any_text_is_read_back_unchanged(world: World) -> None:
    """Four-byte characters, quotes, line ends of Unicode; U+0000 never gets here."""
    query = "😀 𝒳 'quoted\" \\ \u2028 \x01 ü"
    user = "zoë 👩‍👩‍👧"
    turn = await world.begin(Caller(world.app, user), query=query, key="😀")
    (message,) = (await world.messages.page(Caller(world.app, user), turn.conversation_id, limit=1)).items
    assert message.query == query


# --- who may begin


@pytest.mark.parametrize("who", ["ben", "stranger", "newcomer"])
async def test_i11_a_conversation_of_another_user_is_not_found(world: World, who: str) -> None:
    turn = await world.ended()
    caller = {"ben": world.ben, "stranger": world.stranger, "newcomer": Caller(world.app, "zoe")}[who]
    if who != "newcomer":
        await world.ended(caller)
    told = []
    for conversation_id in (turn.conversation_id, new_id()):
        async with world.unchanged():
            with pytest.raises(NotFound) as refused:
                await world.turns.intake.begin(caller, ask(conversation_id, key="k"))
        told.append((refused.value.code, refused.value.message))
    assert told[0] == told[1]


@pytest.mark.parametrize("state", ["planned", "sending", "running"])
async def test_i7_one_active_turn_per_conversation(world: World, state: str) -> None:
    active = await world.begin()
    await world.change(active, state=state)
    async with world.unchanged():
        with pytest.raises(ConversationBusy) as busy:
            await world.turns.intake.begin(world.ann, ask(active.conversation_id, key="k"))
    assert busy.value.task_id == active.task_id


async def test_i7_the_index_forbids_a_second_active_turn(world: World) -> None:
    """This does not depend on the code: even by raw SQL no conversation gets two."""
    ended = await world.ended()
    await world.begin(conversation_id=ended.conversation_id)
    with pytest.raises(IntegrityError):
        await world.execute(text("UPDATE turns SET state = 'running', outcome = NULL WHERE state = 'ended'"))
    await world.execute(text("UPDATE turns SET state = 'queued', outcome = NULL WHERE state = 'ended'"))


@pytest.mark.parametrize("change", ["state = 'lost'", "state = 'ended'", "outcome = 'completed'"])
async def test_the_database_refuses_an_unknown_state(world: World, change: str) -> None:
    await world.begin()
    with pytest.raises(IntegrityError):
        await world.execute(text(f"UPDATE turns SET {change}"))


async def test_i7_one_of_many_concurrent_begins_succeeds(world: World) -> None:
    first = await world.ended()
    conversation = first.conversation_id
    results = await asyncio.gather(
        *(world.process().intake.begin(world.ann, ask(conversation)) for _ in range(12)),
        return_exceptions=True,
    )
    assert Counter(type(result) for result in results) == {StartedTurn: 1, ConversationBusy: 11}
    (turn,) = (result.turn for result in results if isinstance(result, StartedTurn))
    assert {result.task_id for result in results if isinstance(result, ConversationBusy)} == {turn.task_id}
    assert await count(world, "turns") == 2


async def test_a_new_user_can_begin_many_conversations_at_once(world: World) -> None:
    results = await asyncio.gather(
        *(world.turns.intake.begin(Caller(world.app, "new"), ask()) for _ in range(50))
    )
    assert all(isinstance(result, StartedTurn) for result in results)
    assert (await count(world, "turns"), await count(world, "end_users")) == (50, 1)


# --- Idempotency-Key


async def test_i10_the_same_key_and_body_return_the_same_turn(world: World) -> None:
    turn = await world.begin(key="k")
    async with world.unchanged():
        assert await world.process().intake.begin(world.ann, ask(key="k")) == Repeated(turn.task_id)
    await world.turns.intake.stop(world.ann, turn.task_id)
    async with world.unchanged():
        again = await world.turns.intake.begin(world.ann, ask(key="k"))
        assert again == Repeated(turn.task_id), "ended or not"


async def test_i10_a_known_key_wins_over_a_busy_conversation(world: World) -> None:
    first = await world.ended()
    turn = await world.begin(conversation_id=first.conversation_id, key="k")
    again = await world.turns.intake.begin(world.ann, ask(first.conversation_id, key="k"))
    assert again == Repeated(turn.task_id)
    with pytest.raises(ConversationBusy):
        await world.turns.intake.begin(world.ann, ask(first.conversation_id, key="other"))


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
async def test_i10_one_of_many_equal_posts_makes_the_turn(world: World, existing: bool) -> None:
    conversation = (await world.ended()).conversation_id if existing else None
    before = await count(world, "turns")
    results = await asyncio.gather(
        *(world.process().intake.begin(world.ann, ask(conversation, key="k")) for _ in range(12))
    )
    turns = [result.turn for result in results if isinstance(result, StartedTurn)]
    assert len(turns) == 1
    others = {result for result in results if not isinstance(result, StartedTurn)}
    assert others == {Repeated(turns[0].task_id)}
    assert await count(world, "turns") == before + 1
    assert await count(world, "messages") == before + 1


async def test_another_body_is_a_conflict(world: World) -> None:
    first = await world.ended()
    await world.begin(key="k")
    for other in (ask(key="k", query="Ho"), ask(first.conversation_id, key="k")):
        async with world.unchanged():
            with pytest.raises(IdempotencyConflict):
                await world.turns.intake.begin(world.ann, other)


async def test_an_idempotency_key_belongs_to_one_user_of_one_app(world: World) -> None:
    results: list[Any] = [
        await world.turns.intake.begin(caller, ask(key="k"))
        for caller in (world.ann, world.ben, world.stranger)
    ]
    assert len({begun.turn.task_id for begun in results if isinstance(begun, StartedTurn)}) == 3


async def test_a_refused_begin_does_not_use_up_its_key(world: World) -> None:
    with pytest.raises(NotFound):
        await world.turns.intake.begin(world.ann, ask(new_id(), key="k"))
    assert isinstance(await world.turns.intake.begin(world.ann, ask(key="k")), StartedTurn)


async def age_keys(world: World, hours: float) -> None:
    await world.execute(update(TABLES["idempotency"]).values(created_at=now_plus(-hours * 3600)))


async def test_a_key_is_remembered_for_a_day(world: World) -> None:
    turn = await world.begin(key="k")
    await age_keys(world, 23.9)
    assert await world.turns.intake.begin(world.ann, ask(key="k")) == Repeated(turn.task_id)
    await age_keys(world, 24.1)
    again = await world.turns.intake.begin(world.ann, ask(key="k", query="another body"))
    assert isinstance(again, StartedTurn)
    repeated = await world.turns.intake.begin(world.ann, ask(key="k", query="another body"))
    assert repeated == Repeated(again.turn.task_id)


async def test_an_expired_key_does_not_bypass_a_busy_conversation(world: World) -> None:
    first = await world.ended()
    active = await world.begin(conversation_id=first.conversation_id, key="k")
    await age_keys(world, 24.1)
    with pytest.raises(ConversationBusy) as busy:
        await world.turns.intake.begin(world.ann, ask(first.conversation_id, key="k"))
    assert busy.value.task_id == active.task_id
