"""What a client sends once is stored once, and lists are bounded in bytes."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Text, cast, func, select

from agent_gateway.domain.events import Endings
from agent_gateway.domain.human_input import Question
from agent_gateway.domain.ids import ConversationId, RunId
from agent_gateway.domain.turns import Turn
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.db.migrations import migrate
from agent_gateway.store.messages import MessageStore
from tests.support.databases import run_alembic
from tests.support.store_world import DEFINITION, METADATA, SUBMISSION, World, completed

pytestmark = pytest.mark.anyio

messages = METADATA.tables["messages"]
conversations = METADATA.tables["conversations"]
MIXED: dict[str, Any] = {"a": 1, "b": True, "c": [1.0, {"d": None}], "e": "x" * 1000}


async def told(world: World, inputs: dict[str, Any], conversation_id: str | None = None) -> Turn:
    """A turn that came with these inputs, and has ended."""
    turn = await world.begin(world.ann, conversation_id, inputs=inputs)
    assert await world.turns.owned.arm(turn)
    assert await world.turns.owned.mark_running(turn, RunId("run")) is not None
    assert await world.turns.owned.finish(turn, Endings.always(completed()))
    return turn


async def shown(world: World, conversation_id: str) -> list[dict[str, Any]]:
    page = await world.messages.page(world.ann, ConversationId(conversation_id), limit=100)
    return [message.inputs for message in page.items]


async def stored(world: World) -> list[dict[str, Any]]:
    """What the rows of the messages hold, in their order."""
    async with world.database.reading() as session:
        return list(await session.scalars(select(messages.c.inputs).order_by(messages.c.seq)))


async def test_the_inputs_of_a_conversation_are_stored_once(world: World) -> None:
    large = {"text": "x" * 500_000}
    conversation = (await told(world, large)).conversation_id
    for number in range(5):
        turn = await told(world, {"number": number}, conversation)
        assert turn.inputs == {**large, "number": number}
        loaded = await world.turns.reader.load(turn.task_id)
        assert loaded is not None
        assert loaded.inputs == turn.inputs
    # Sent again, they are no other ones.
    await told(world, large, conversation)
    assert await shown(world, conversation) == [large, *({**large, "number": n} for n in range(5)), large]
    async with world.database.reading() as session:
        size = func.sum(func.length(cast(messages.c.inputs, Text)))
        assert await session.scalar(select(size)) < 1000
        assert await session.scalar(select(func.length(cast(conversations.c.inputs, Text)))) > 500_000


async def test_a_message_shows_its_inputs_with_their_types(world: World) -> None:
    conversation = (await told(world, MIXED)).conversation_id
    others: list[dict[str, Any]] = [{"a": True}, {"b": 1}, {"c": [1, {"d": None}]}, {"a": 1.5}, {}]
    for other in others:
        await told(world, other, conversation)
    expected = [MIXED, *({**MIXED, **other} for other in others)]
    assert repr(await shown(world, conversation)) == repr([dict(sorted(one.items())) for one in expected])
    assert await stored(world) == [{}, *others]


async def test_an_answer_has_the_inputs_of_its_question(world: World) -> None:
    """However often it asks: they are those of the message that brought them, and not stored again."""
    conversation = (await told(world, {"kept": 1})).conversation_id
    turn = await world.begin(world.ann, conversation, inputs={"own": "y" * 1000})
    for _ in range(3):
        assert await world.turns.owned.arm(turn)
        assert await world.turns.owned.mark_running(turn, RunId("run")) is not None
        question = Question("call", "Sure?", DEFINITION)
        asked = await world.turns.owned.finish(turn, Endings.always(replace(completed(), question=question)))
        assert asked is not None
        assert asked.form is not None
        turn = await world.turns.intake.submit(world.app.id, asked.form.token, SUBMISSION)
        assert turn.inputs == {"kept": 1, "own": "y" * 1000}
    assert await shown(world, conversation) == [{"kept": 1}, *[{"kept": 1, "own": "y" * 1000}] * 4]
    assert await stored(world) == [{}, {"own": "y" * 1000}, {}, {}, {}]


async def test_rows_of_the_release_before_show_the_same_and_stay_as_they_are(world: World) -> None:
    """A message kept everything itself, and processes of that release still work with it."""
    conversation = (await told(world, MIXED)).conversation_id
    others: list[dict[str, Any]] = [{}, {"a": 1.0}, {"f": "new"}, {"b": False, "f": None}]
    for other in others:
        await told(world, other, conversation)
    running = await world.begin(world.ann, conversation, inputs={"g": 2})
    before = await shown(world, conversation)

    await run_alembic(world.database, "downgrade", "0008")
    assert repr(await stored(world)) == repr(before)
    await migrate(world.database)
    assert repr(await shown(world, conversation)) == repr(before)
    assert repr(await stored(world)) == repr(before)
    loaded = await world.turns.reader.load(running.task_id)
    assert loaded is not None
    assert loaded.inputs == {**MIXED, "g": 2}


@pytest.mark.parametrize("many", [0, 3])
async def test_a_page_is_bounded_in_bytes(world: World, many: int) -> None:
    """The bytes that are shown, wherever they are stored; and it has one item at least."""
    small = MessageStore(world.database, page_bytes=many * 1200)
    conversation = (await told(world, {"text": "x" * 1000})).conversation_id
    turns = [await told(world, {}, conversation) for _ in range(6)]
    found: list[str] = []
    sizes: list[int] = []
    first_id, has_more = None, True
    while has_more:
        page = await small.page(world.ann, conversation, limit=100, first_id=first_id)
        found = [message.id for message in page.items] + found
        sizes.append(len(page.items))
        first_id, has_more = found[0], page.has_more
    assert found[1:] == [turn.message_id for turn in turns]
    assert sizes == ([3, 3, 1] if many else [1] * 7)


async def test_a_page_of_conversations_is_bounded_in_bytes(world: World) -> None:
    small = ConversationStore(world.database, page_bytes=2 * 1200)
    begun = [(await told(world, {"text": "x" * 1000})).conversation_id for _ in range(5)]
    found: list[str] = []
    sizes: list[int] = []
    last_id, has_more = None, True
    while has_more:
        page = await small.page(world.ann, limit=100, sort_by="created_at", last_id=last_id)
        found += [conversation.id for conversation in page.items]
        sizes.append(len(page.items))
        last_id, has_more = found[-1], page.has_more
    assert found == begun
    assert sizes == [2, 2, 1]
