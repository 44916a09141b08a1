"""What is not kept: conversations past their time or deleted, deleted apps, and what nobody uses (R18)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from agent_gateway.apps.config import AppConfig
from agent_gateway.domain.events import Endings
from agent_gateway.domain.files import InputFile
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import App, Caller, Turn, TurnRequest
from agent_gateway.errors import NotFound
from agent_gateway.store import removal, retention
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import conversations, end_users, files, idempotency, turns
from agent_gateway.store.erasure import EndUserData
from agent_gateway.store.feedbacks import FeedbackStore
from agent_gateway.store.files import FileStore
from agent_gateway.store.objects import Objects
from agent_gateway.store.removal import QUIET_SECONDS
from agent_gateway.store.retention import Retention
from agent_gateway.store.turns.intake import StartedTurn
from tests.support.files import stored_upload
from tests.support.store_world import METADATA, World, ask, completed

pytestmark = pytest.mark.anyio

DAY = 24 * 3600
SNAPSHOT = '{"layers": []}'
OF_CONVERSATIONS = ("conversations", "messages", "turns", "steps", "forms", "feedbacks", "snapshots")
KEPT_WITH_APPS = ("apps", "app_versions")


@pytest.fixture
def store(world: World, tmp_path: Path) -> FileStore:
    return FileStore(world.database, Objects("", tmp_path / "files"))


@pytest.fixture
def keeping_for_ever(world: World, store: FileStore) -> Retention:
    return Retention(world.database, store, 0, 600.0)


async def rows(world: World) -> dict[str, int]:
    """How many rows each table has, without those that have none."""
    async with world.database.reading() as session:
        found = {
            name: await session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in METADATA.tables.items()
        }
    return {name: number for name, number in found.items() if number}


async def untouched(world: World, turn: Turn, days: float) -> None:
    """Nobody has touched this turn's conversation for so long."""
    which = conversations.c.id == turn.conversation_id
    await world.execute(update(conversations).where(which).values(updated_at=now_plus(-days * DAY - 60)))


async def quiet(world: World) -> None:
    """All ends and all deletions were long enough ago."""
    long_ago = now_plus(-QUIET_SECONDS - 1)
    await world.execute(update(turns).where(turns.c.ended_at.is_not(None)).values(ended_at=long_ago))
    for table in (conversations, METADATA.tables["apps"]):
        await world.execute(update(table).where(table.c.deleted_at.is_not(None)).values(deleted_at=long_ago))


async def exists(world: World, turn: Turn) -> bool:
    async with world.database.reading() as session:
        which = select(conversations.c.id).where(conversations.c.id == turn.conversation_id)
        return await session.scalar(which) is not None


async def test_a_deleted_conversation_leaves_no_row(world: World, keeping_for_ever: Retention) -> None:
    turn = await world.ended()
    for _ in range(2):
        await world.ended(conversation_id=turn.conversation_id)
    await FeedbackStore(world.database).rate(world.ann, turn.message_id, "like", "good")
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    await keeping_for_ever.prune()
    assert await exists(world, turn), "a reader may not have its end yet"
    await quiet(world)
    would_go = await keeping_for_ever.preview()
    counts = await keeping_for_ever.prune()
    assert {kind: counts[kind] for kind in OF_CONVERSATIONS} == {
        **dict.fromkeys(OF_CONVERSATIONS, 3),
        "conversations": 1,
        "steps": 6,
        "forms": 0,
        "feedbacks": 1,
        "snapshots": 0,
    }
    assert {kind: would_go[kind] for kind in OF_CONVERSATIONS} == {
        kind: counts[kind] for kind in OF_CONVERSATIONS
    }
    assert await rows(world) == {"apps": 2, "app_versions": 2, "end_users": 1}


async def test_a_deleted_conversation_waits_for_the_outbox(world: World, keeping_for_ever: Retention) -> None:
    """Its session is closed with what its rows say."""
    turn = await world.ended(snapshot=SNAPSHOT)
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    await quiet(world)
    await keeping_for_ever.prune()
    assert await exists(world, turn)
    assert await keeping_for_ever.waiting() == 1
    [entry] = await world.turns.outbox.claim(5)
    await world.turns.outbox.complete(entry)
    await keeping_for_ever.prune()
    assert not await exists(world, turn)
    assert await keeping_for_ever.waiting() == 0


async def test_a_deleted_conversation_waits_for_its_turn(world: World, keeping_for_ever: Retention) -> None:
    turn = await world.begin()
    assert await world.turns.owned.arm(turn)
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    await quiet(world)
    await keeping_for_ever.prune()
    assert await exists(world, turn)
    assert await world.turns.owned.finish(turn, Endings.always(completed()))
    await keeping_for_ever.prune()
    assert await exists(world, turn), "a reader may not have its end yet"
    await quiet(world)
    await keeping_for_ever.prune()
    assert await rows(world) == {"apps": 2, "app_versions": 2, "end_users": 1}


async def test_untouched_conversations_go_after_the_days_of_the_settings(
    world: World, store: FileStore
) -> None:
    keeping = Retention(world.database, store, 7, 600.0)
    old, young, running = await world.ended(snapshot=SNAPSHOT), await world.ended(), await world.begin()
    await untouched(world, old, 7)
    await untouched(world, young, 6)
    await untouched(world, running, 70)
    async with world.unchanged():
        would_go = await keeping.preview()
    assert (would_go["conversations past their time"], would_go["messages"]) == (1, 1)
    counts = await keeping.prune()
    assert (counts["conversations past their time"], counts["conversations"]) == (1, 0)
    with pytest.raises(NotFound):
        await world.conversations.require(world.ann, old.conversation_id)
    # As if its user had deleted it: its session is closed, and then it is removed.
    [entry] = await world.turns.outbox.claim(5)
    assert (entry.kind, entry.task_id) == ("close_session", old.task_id)
    await world.turns.outbox.complete(entry)
    await quiet(world)
    assert (await keeping.prune())["conversations"] == 1
    assert [await exists(world, turn) for turn in (old, young, running)] == [False, True, True]


async def test_an_app_says_itself_how_long(world: World, store: FileStore) -> None:
    """Its current version does; 0 is for ever, whatever the settings say."""
    turns_of: dict[str, Turn] = {}
    for slug, days in {"short": 2, "ever": 0, "other": None}.items():
        await world.apps.apply(slug, AppConfig(name=slug, retention_days=99))
        await world.apps.apply(slug, AppConfig(name=slug, retention_days=days))
        found = await world.apps.find_by_slug(slug)
        assert found is not None
        app = App(found.id, found.version_id, found.config)
        turns_of[slug] = await world.ended(Caller(app, "ann"))
        await untouched(world, turns_of[slug], 3)
    await Retention(world.database, store, 5, 600.0).prune()
    await quiet(world)
    await Retention(world.database, store, 5, 600.0).prune()
    assert {slug: await exists(world, turn) for slug, turn in turns_of.items()} == {
        "short": False,
        "ever": True,
        "other": True,
    }


async def test_a_message_that_comes_in_between_keeps_its_conversation(
    world: World, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was past its time when it was found, and is not when it is locked."""
    keeping = Retention(world.database, store, 7, 600.0)
    old = await world.ended()
    await untouched(world, old, 7)
    mark = Retention._mark

    async def after_a_message(self: Retention, conversation_id: str, which: Any) -> int:
        await world.ended(conversation_id=conversation_id)
        return await mark(self, conversation_id, which)

    monkeypatch.setattr(Retention, "_mark", after_a_message)
    assert (await keeping.prune())["conversations past their time"] == 0
    await world.conversations.require(world.ann, old.conversation_id)


async def test_long_conversations_and_many_go_in_small_transactions(
    world: World, keeping_for_ever: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By several processes at once; each row is deleted by one of them."""
    monkeypatch.setattr(removal, "MESSAGES", 2)
    monkeypatch.setattr(removal, "_NEXT", removal._NEXT.limit(2))
    monkeypatch.setattr(retention, "PAGE", 3)
    kept = await world.ended()
    for length in (5, 1, 1, 4, 1, 2, 1):
        first = await world.ended()
        for _ in range(length - 1):
            await world.ended(conversation_id=first.conversation_id)
        await world.turns.intake.delete(world.ann, first.conversation_id)
    await quiet(world)
    counts = await asyncio.gather(*(keeping_for_ever.prune() for _ in range(3)))
    assert [sum(count[kind] for count in counts) for kind in ("conversations", "messages")] == [7, 15]
    assert await exists(world, kept)
    assert (await rows(world))["turns"] == 1


async def test_a_deleted_app_leaves_no_row(world: World, store: FileStore, tmp_path: Path) -> None:
    keeping = Retention(world.database, store, 0, 600.0)
    key_id, _ = await world.keys.make(world.app.id, "a key")
    await world.keys.count_request(key_id)
    await world.turns.intake.begin(world.ann, ask(key="once"))
    turn = await world.ended()
    other = await world.ended(world.stranger)
    await stored_upload(store, world.ann)
    await world.apps.delete(world.app.id)
    await quiet(world)
    counts = await keeping.prune()
    assert (counts["conversations past their time"], counts["files"]) == (2, 1), "marked, so that turns end"
    async with world.database.reading() as session:
        assert set(await session.scalars(select(turns.c.outcome))) == {"stopped", "completed"}
    await quiet(world)
    counts = await keeping.prune()
    assert [counts[kind] for kind in ("conversations", "API keys", "end users", "apps")] == [2, 1, 1, 1]
    assert not await exists(world, turn)
    assert await exists(world, other)
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []
    assert await rows(world) == {
        **dict.fromkeys(("apps", "app_versions", "end_users", "conversations", "messages", "turns"), 1),
        "steps": 2,
    }


async def test_end_users_without_anything_go(world: World, store: FileStore) -> None:
    keeping = Retention(world.database, store, 0, 600.0)
    talked = await world.ended(world.ann)
    await stored_upload(store, world.ben)
    left = Caller(world.app, "left")
    gone = await world.ended(left)
    await world.turns.intake.delete(left, gone.conversation_id)
    await quiet(world)
    assert (await keeping.prune())["end users"] == 0, "who came today may be about to come back"
    await world.execute(update(end_users).values(created_at=now_plus(-DAY - 60)))
    assert (await keeping.preview())["end users"] == 1
    assert (await keeping.prune())["end users"] == 1
    async with world.database.reading() as session:
        assert set(await session.scalars(select(end_users.c.external_id))) == {"ann", "ben"}
    assert await exists(world, talked)
    # Who comes back is a new end user.
    await world.ended(left)


async def test_old_idempotency_keys_go(world: World, keeping_for_ever: Retention) -> None:
    for key in ("old", "young"):
        await world.turns.intake.begin(world.ann, ask(key=key))
    await world.execute(
        update(idempotency).where(idempotency.c.key == "old").values(created_at=now_plus(-DAY - 1))
    )
    assert (await keeping_for_ever.preview())["idempotency keys"] == 1
    assert (await keeping_for_ever.prune())["idempotency keys"] == 1
    async with world.database.reading() as session:
        assert list(await session.scalars(select(idempotency.c.key))) == ["young"]


async def test_a_preview_counts_the_files_that_would_go(world: World, store: FileStore) -> None:
    keeping = Retention(world.database, store, 7, 600.0)
    only, shared = await stored_upload(store, world.ann), await stored_upload(store, world.ann)
    begun = []
    for used in ((only, shared), (shared,)):
        sent = [InputFile("image", "local_file", upload_file_id=one.file.id) for one in used]
        found = await world.turns.intake.begin(world.ann, TurnRequest("Hi", {}, sent))
        assert isinstance(found, StartedTurn)
        await world.turns.intake.stop(world.ann, found.turn.task_id)
        begun.append(found.turn)
    await untouched(world, begun[0], 7)
    assert (await keeping.preview())["files"] == 1
    assert (await keeping.prune())["files"] == 1
    async with world.database.reading() as session:
        assert list(await session.scalars(select(files.c.id))) == [shared.file.id]


async def test_who_comes_back_while_unused_end_users_go_is_served(
    world: World, keeping_for_ever: Retention
) -> None:
    """With a message in the same moment."""
    callers = [Caller(world.app, f"user {number}") for number in range(12)]
    for caller in callers:
        turn = await world.ended(caller)
        await world.turns.intake.delete(caller, turn.conversation_id)
    await quiet(world)
    await keeping_for_ever.prune()
    await world.execute(update(end_users).values(created_at=now_plus(-DAY - 60)))
    async with world.database.reading() as session:
        ids = list(await session.scalars(select(end_users.c.id)))
    await asyncio.gather(
        *(keeping_for_ever._remove_end_users([end_user_id]) for end_user_id in ids),
        *(world.turns.intake.begin(caller, ask()) for caller in callers),
    )
    async with world.database.reading() as session:
        assert len(list(await session.scalars(select(end_users.c.id)))) == len(callers)


async def test_writes_about_a_removed_turn_change_nothing(world: World, store: FileStore) -> None:
    """Another process drives it, and does not know: none of its writes fails."""
    process = world.process()
    turn = await world.begun_by(process)
    assert await process.owned.arm(turn)
    found = await EndUserData.find(world.database, store, world.app.id, "ann")
    assert found is not None
    await found.hide(600.0)
    assert (await found.open_work()).turns == 1
    assert (await found.delete())[1]
    async with world.unchanged():
        assert await process.owned.mark_running(turn, RunId("run")) is None
        assert await process.owned.heartbeat([turn]) == {}
        await process.owned.save_checkpoints([(turn, b"state")])
        assert await process.owned.release([(turn, None)]) == set()
        assert await process.owned.finish(turn, Endings.always(completed(snapshot=SNAPSHOT))) is None
        await process.outbox.cancel_tried(turn, RunId("run"), done=False)
        assert await process.intake.stop(world.ann, turn.task_id) is None
        assert await process.reader.load(turn.task_id) is None
        with pytest.raises(NotFound):
            await process.reader.result(turn.task_id)
    assert await rows(world) == {"apps": 2, "app_versions": 2}


async def test_an_erasure_takes_what_the_user_begins_meanwhile(world: World, store: FileStore) -> None:
    """And nothing of another user, or of a user with the same name at another app."""
    first = await world.ended(snapshot=SNAPSHOT)
    others = [await world.ended(world.ben), await world.ended(world.stranger)]
    found = await EndUserData.find(world.database, store, world.app.id, "ann")
    assert found is not None
    await found.hide(600.0)
    assert (await found.open_work()).sessions == 1
    second = await world.ended()
    counts, gone = await found.delete()
    assert (counts["conversations"], counts["snapshots"], gone) == (1, 1, False)
    await found.hide(600.0)
    counts, gone = await found.delete()
    assert (counts["conversations"], counts["end users"], gone) == (1, 1, True)
    assert await EndUserData.find(world.database, store, world.app.id, "ann") is None
    assert [await exists(world, turn) for turn in (first, second, *others)] == [False, False, True, True]
