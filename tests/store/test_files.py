"""Rows of files: whose they are, which messages use them, and what is forgotten after a while."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import delete, select, update

from agent_gateway.domain.events import Endings, Result
from agent_gateway.domain.files import InputFile, StoredFile, artifact_id
from agent_gateway.domain.ids import FileId
from agent_gateway.domain.turns import Caller, Outcome, TurnRequest
from agent_gateway.errors import FileNotFound
from agent_gateway.store.db.tables import files, message_files, messages, turns
from agent_gateway.store.files import UNUSED_SECONDS, FileStore, Upload
from agent_gateway.store.objects import Objects, object_key
from agent_gateway.store.turns.intake import StartedTurn
from tests.support.files import stored_upload
from tests.support.store_world import World

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(world: World, tmp_path: Path) -> FileStore:
    return FileStore(world.database, Objects("", tmp_path / "files"))


async def begun(world: World, *uploads: Upload, caller: Caller | None = None) -> StartedTurn:
    sent = [InputFile("image", "local_file", upload_file_id=upload.file.id) for upload in uploads]
    found = await world.turns.intake.begin(caller or world.ann, TurnRequest("Hi", {}, sent))
    assert isinstance(found, StartedTurn)
    return found


async def age(world: World, *ids: str) -> None:
    """These files were uploaded long enough ago."""
    old = datetime.now(UTC) - timedelta(seconds=UNUSED_SECONDS + 60)
    async with world.database.transaction() as connection:
        await connection.execute(update(files).where(files.c.id.in_(ids)).values(created_at=old))


def on_disk(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "files").rglob("*") if path.is_file()}


async def test_a_message_stores_the_details_of_its_files(world: World, store: FileStore) -> None:
    kept = await stored_upload(store, world.ann)
    remote = InputFile("image", "remote_url", "https://x.test/a.png", name="a.png")
    sent = [InputFile("image", "local_file", upload_file_id=kept.file.id), remote]
    found = await world.turns.intake.begin(world.ann, TurnRequest("Hi", {}, sent))
    assert isinstance(found, StartedTurn)
    resolved = InputFile("document", "local_file", "", kept.file.id, "a.txt", "text/plain", 5)
    assert found.turn.files == [resolved, remote]
    again = await world.turns.reader.load(found.turn.task_id)
    assert again is not None
    assert again.files == [resolved, remote], "who adopts the turn knows the same"


async def test_a_caller_sees_only_their_own_files(world: World, store: FileStore) -> None:
    kept = await stored_upload(store, world.ann)
    assert (await store.find(world.app.id, "ann", kept.file.id)).file == kept.file
    for app, user in ((world.app, "ben"), (world.other_app, "ann")):
        with pytest.raises(FileNotFound):
            await store.find(app.id, user, kept.file.id)
    for caller in (world.ben, world.stranger):
        with pytest.raises(FileNotFound):
            await begun(world, kept, caller=caller)


async def test_two_concurrent_first_uploads_of_a_user_share_one_end_user(
    world: World, store: FileStore
) -> None:
    uploads = await asyncio.gather(*(stored_upload(store, Caller(world.app, "new")) for _ in range(5)))
    assert len({one.created_by for one in uploads}) == 1


async def test_unused_uploads_are_deleted_after_a_while(
    world: World, store: FileStore, tmp_path: Path
) -> None:
    young, used, unused = [await stored_upload(store, world.ann) for _ in range(3)]
    turn = (await begun(world, used)).turn
    await store.tidy()
    assert on_disk(tmp_path) == {young.file.id, used.file.id, unused.file.id}
    await age(world, used.file.id, unused.file.id)
    old = (await store.find_any(unused.file.id)).key
    (tmp_path / "files" / old).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "files" / object_key(unused.created_at, unused.file.id)).rename(tmp_path / "files" / old)
    await store.tidy()
    assert on_disk(tmp_path) == {young.file.id, used.file.id}
    with pytest.raises(FileNotFound):
        await store.find_any(unused.file.id)

    # When its message is gone, nobody uses it any more.
    async with world.database.transaction() as connection:
        await connection.execute(delete(turns).where(turns.c.id == turn.task_id))
        await connection.execute(delete(messages).where(messages.c.id == turn.message_id))
        assert (await connection.execute(select(message_files))).all() == []
    await store.tidy()
    with pytest.raises(FileNotFound):
        await store.find_any(used.file.id)
    assert (await store.find_any(young.file.id)).file == young.file


async def test_files_of_a_deleted_conversation_lose_their_bytes_first(
    world: World, store: FileStore, tmp_path: Path
) -> None:
    """Their age does not matter. A file of another conversation stays, and so does a file of none."""
    gone, shared, unused = [await stored_upload(store, world.ann) for _ in range(3)]
    turn = (await begun(world, gone, shared)).turn
    await begun(world, shared)
    await age(world, gone.file.id)
    old = (await store.find_any(gone.file.id)).key
    (tmp_path / "files" / old).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "files" / object_key(gone.created_at, gone.file.id)).rename(tmp_path / "files" / old)
    await world.turns.intake.delete(world.ann, turn.conversation_id)
    with pytest.raises(FileNotFound):
        await store.find_any(gone.file.id)
    await store.tidy()
    assert on_disk(tmp_path) == {shared.file.id, unused.file.id}
    async with world.database.reading() as session:
        assert set(await session.scalars(select(files.c.id))) == {shared.file.id, unused.file.id}


async def test_a_file_is_not_hidden_while_it_is_attached(world: World, store: FileStore) -> None:
    """Two conversations at once: one is deleted while the other's message, with the same file, begins."""
    kept = await stored_upload(store, world.ann)
    turn = (await begun(world, kept)).turn
    outcomes = await asyncio.gather(
        *(begun(world, kept) for _ in range(3)),
        world.turns.intake.delete(world.ann, turn.conversation_id),
        *(begun(world, kept) for _ in range(3)),
        return_exceptions=True,
    )
    attached = [one for one in outcomes if isinstance(one, StartedTurn)]
    assert not [one for one in outcomes if isinstance(one, Exception) and not isinstance(one, FileNotFound)]
    if attached:
        assert (await store.find_any(kept.file.id)).file == kept.file
    else:
        with pytest.raises(FileNotFound):
            await store.find_any(kept.file.id)


async def test_bytes_without_a_row_are_found_by_their_day(
    world: World, store: FileStore, tmp_path: Path
) -> None:
    """What a crash left: old enough, of yesterday or the day before. A row keeps its bytes."""
    objects = Objects("", tmp_path / "files")
    kept = await stored_upload(store, world.ann)
    await begun(world, kept)
    await age(world, kept.file.id)
    now = datetime.now(UTC)
    old = (now - timedelta(days=1)).timestamp() - 3600
    lost, fresh = str(uuid4()), str(uuid4())
    for file_id, day in ((lost, 2), (lost, 1), (fresh, 1)):
        await objects.put_bytes(object_key(now - timedelta(days=day), file_id), b"x")
    await objects.put_bytes((await store.find_any(kept.file.id)).key, b"x")
    for path in (tmp_path / "files").rglob("*"):
        if path.is_file() and path.name != fresh:
            os.utime(path, (old, old))
    await store.tidy()
    assert on_disk(tmp_path) == {kept.file.id, fresh}


async def test_artifacts_are_written_with_the_end_of_the_turn(world: World, store: FileStore) -> None:
    turn = (await begun(world)).turn
    file_id = artifact_id(turn.message_id, 1)
    for _ in range(2):
        await store.put_artifact(turn.created_at, file_id, b"image")
    made = StoredFile(file_id, "image-1.png", "image", "image/png", 5, position=3)
    result = Result(Outcome.COMPLETED, (), (), 5, files=(made,))
    assert await world.turns.owned.finish(turn, Endings.always(result)) == result
    assert await world.turns.reader.result(turn.task_id) == result
    kept = await store.find(world.app.id, "ann", file_id)
    assert b"".join([chunk async for chunk in await store.read(kept, 0, 5)]) == b"image"
    [message] = (await world.messages.page(world.ann, turn.conversation_id, limit=1)).items
    assert list(message.artifacts) == [made]
    with pytest.raises(FileNotFound):
        await store.find(world.app.id, "ben", file_id)


async def test_a_late_end_writes_no_files(world: World, store: FileStore) -> None:
    turn = (await begun(world)).turn
    made = StoredFile(FileId(artifact_id(turn.message_id, 1)), "a", "custom", "x/y", 1, position=1)
    result = Result(Outcome.COMPLETED, (), (), 3, files=(made,))
    assert await world.process().owned.finish(turn, Endings.always(result)) is None
    with pytest.raises(FileNotFound):
        await store.find_any(made.id)
