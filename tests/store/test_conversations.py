"""Lists of conversations and messages: order, pages, and whose they are."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from agent_gateway.domain.ids import ConversationId, new_id
from agent_gateway.domain.turns import Caller, Outcome, Turn
from agent_gateway.errors import NotFound
from agent_gateway.store.conversations import SortBy
from tests.support.store_world import METADATA, World, completed

pytestmark = pytest.mark.anyio

DAY = datetime(2026, 1, 1, 12, 0, 0, 123_457, tzinfo=UTC)
ORDERS: list[SortBy] = ["created_at", "-created_at", "updated_at", "-updated_at"]
conversations = METADATA.tables["conversations"]


async def conversations_at(world: World, *times: tuple[int, int]) -> list[str]:
    """Conversations of Ann created and updated so many microseconds after a moment; their ids."""
    ids: list[str] = []
    for created, updated in times:
        turn = await world.ended()
        await world.execute(
            update(conversations)
            .where(conversations.c.id == turn.conversation_id)
            .values(
                created_at=DAY + timedelta(microseconds=created),
                updated_at=DAY + timedelta(microseconds=updated),
            )
        )
        ids.append(turn.conversation_id)
    return ids


async def pages(world: World, caller: Caller, sort_by: SortBy, limit: int) -> list[list[str]]:
    """The ids on each page, to the end."""
    found: list[list[str]] = []
    last_id, has_more = None, True
    while has_more:
        assert len(found) < 20, "it goes round in circles"
        page = await world.conversations.page(caller, limit=limit, sort_by=sort_by, last_id=last_id)
        found.append([item.id for item in page.items])
        last_id, has_more = found[-1][-1] if found[-1] else None, page.has_more
    return found


@pytest.mark.parametrize("sort_by", ORDERS)
async def test_conversations_are_sorted(world: World, sort_by: SortBy) -> None:
    a, b, c = await conversations_at(world, (2, 5), (1, 6), (3, 4))
    expected = {"created_at": [b, a, c], "updated_at": [c, a, b]}[sort_by.removeprefix("-")]
    if sort_by.startswith("-"):
        expected.reverse()
    assert await pages(world, world.ann, sort_by, 20) == [expected]


@pytest.mark.parametrize("sort_by", ORDERS)
async def test_pages_contain_each_conversation_once_even_with_equal_times(
    world: World, sort_by: SortBy
) -> None:
    """Microseconds count, and where they are equal the id decides."""
    ids = await conversations_at(world, (0, 0), (0, 0), (0, 1), (1, 0), (0, 0), (1, 1), (1, 1))
    (whole,) = await pages(world, world.ann, sort_by, 20)
    assert sorted(whole) == sorted(ids)
    for limit in (1, 2, 3, 7):
        parts = await pages(world, world.ann, sort_by, limit)
        assert [item for part in parts for item in part] == whole
        assert {len(part) for part in parts[:-1]} <= {limit}


async def test_has_more_is_true_only_when_more_follows(world: World) -> None:
    await conversations_at(world, (0, 0), (1, 1))
    for limit, more in ((1, True), (2, False), (3, False)):
        page = await world.conversations.page(world.ann, limit=limit, sort_by="-updated_at")
        assert (len(page.items), page.has_more) == (min(limit, 2), more)


async def test_times_are_read_back_as_written(world: World) -> None:
    await conversations_at(world, (7, 8))
    (item,) = (await world.conversations.page(world.ann, limit=1, sort_by="created_at")).items
    assert (item.created_at, item.updated_at) == (
        DAY + timedelta(microseconds=7),
        DAY + timedelta(microseconds=8),
    )
    assert item.inputs == {"name": "Ann"}


async def test_an_unknown_last_id_is_not_found(world: World) -> None:
    mine, theirs, foreign = (
        await world.ended(),
        await world.ended(world.ben),
        await world.ended(world.stranger),
    )
    told = set()
    for last_id in (new_id(), theirs.conversation_id, foreign.conversation_id):
        with pytest.raises(NotFound) as refused:
            await world.conversations.page(world.ann, limit=20, sort_by="created_at", last_id=last_id)
        told.add(refused.value.message)
    assert len(told) == 1, "I11: what is somebody else's answers like what does not exist"
    page = await world.conversations.page(
        world.ann, limit=20, sort_by="created_at", last_id=mine.conversation_id
    )
    assert (page.items, page.has_more) == ([], False)


async def test_i11_a_user_lists_only_their_own_conversations(world: World) -> None:
    for caller in (world.ann, world.ben, world.stranger):
        turn = await world.ended(caller)
        assert await pages(world, caller, "-updated_at", 20) == [[turn.conversation_id]]
    assert await pages(world, Caller(world.app, "nobody"), "-updated_at", 20) == [[]]


# --- messages


async def talk(world: World, length: int) -> list[Turn]:
    """A conversation of so many ended turns."""
    turns = [await world.ended()]
    while len(turns) < length:
        turns.append(await world.ended(conversation_id=turns[0].conversation_id))
    return turns


async def test_messages_come_newest_page_first_each_page_in_order(world: World) -> None:
    turns = await talk(world, 5)
    ids = [turn.message_id for turn in turns]
    conversation = turns[0].conversation_id
    first_id: str | None = None
    found: list[list[str]] = []
    for more in (True, True, False):
        page = await world.messages.page(world.ann, conversation, limit=2, first_id=first_id)
        found.append([message.id for message in page.items])
        first_id = found[-1][0]
        assert page.has_more is more
    assert found == [ids[3:5], ids[1:3], ids[0:1]]
    page = await world.messages.page(world.ann, conversation, limit=2, first_id=ids[0])
    assert (page.items, page.has_more) == ([], False)


async def test_a_message_has_the_outcome_of_its_turn(world: World) -> None:
    done = await world.ended()
    lost = await world.begin(conversation_id=done.conversation_id)
    await world.fail(lost)
    running = await world.begin(conversation_id=done.conversation_id)
    page = await world.messages.page(world.ann, done.conversation_id, limit=20)
    assert [(message.outcome, message.error_code) for message in page.items] == [
        (Outcome.COMPLETED, None),
        (Outcome.FAILED, "turn_interrupted"),
        (None, None),
    ]
    first, second, third = page.items
    assert (first.answer, tuple(first.steps), first.usage) == (
        completed().answer,
        completed().steps,
        completed().usage,
    )
    assert (second.answer, list(second.steps), second.usage) == ("", [], None)
    assert (third.id, third.query, third.inputs, third.files) == (
        running.message_id,
        "Hi",
        {"name": "Ann"},
        [],
    )
    assert int(first.created_at.timestamp()) == done.created_at


async def test_i11_messages_of_others_are_not_found(world: World) -> None:
    turn = await world.ended()
    told = set()
    for caller in (world.ben, world.stranger):
        await world.ended(caller)
        with pytest.raises(NotFound) as refused:
            await world.messages.page(caller, turn.conversation_id, limit=20)
        told.add(refused.value.message)
    with pytest.raises(NotFound) as refused:
        await world.messages.page(world.ann, ConversationId(new_id()), limit=20)
    assert told == {refused.value.message}


async def test_a_first_id_of_another_conversation_is_not_found(world: World) -> None:
    turn, elsewhere, theirs = await world.ended(), await world.ended(), await world.ended(world.ben)
    for first_id in (elsewhere.message_id, theirs.message_id, new_id()):
        with pytest.raises(NotFound):
            await world.messages.page(world.ann, turn.conversation_id, limit=20, first_id=first_id)


@pytest.mark.parametrize("sort_by", ORDERS)
async def test_pages_work_with_times_of_the_database(world: World, sort_by: SortBy) -> None:
    """SQLite keeps them more finely than a datetime does: none is on two pages."""
    begun = {(await world.ended()).conversation_id for _ in range(8)}
    found = [page[0] for page in await pages(world, world.ann, sort_by, 1)]
    assert (len(found), set(found)) == (8, begun)
