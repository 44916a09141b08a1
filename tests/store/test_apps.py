"""Apps, their versions, and the keys that open them."""

import asyncio
import json

import pytest
from sqlalchemy import func, select, update

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.domain.ids import KeyId, new_id
from agent_gateway.domain.turns import App
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.keys import KeyStore
from tests.support.store_world import METADATA, World

pytestmark = pytest.mark.anyio

CONFIG = AppConfig(name="Ann's app", opening_statement="Hi 😀", suggested_questions=["Why?"])
TABLES = METADATA.tables


async def count(world: World, table: str) -> int:
    async with world.database.reading() as session:
        found = await session.execute(select(func.count()).select_from(TABLES[table]))
        return found.scalar_one()


async def opened(world: World, key: str) -> App | None:
    """The app that this key opens."""
    found = await world.keys.find(key)
    return found.app if found else None


async def test_a_stored_app_is_read_back_unchanged(world: World) -> None:
    app_id = (await world.apps.apply("mine", CONFIG)).app_id
    app = await world.apps.find_by_slug("mine")
    assert app is not None
    assert (app.id, app.config) == (app_id, CONFIG)
    assert await world.apps.find_by_slug("yours") is None


async def test_a_version_is_made_only_when_something_changed(world: World) -> None:
    app_id = (await world.apps.apply("mine", CONFIG)).app_id
    first = await world.apps.find_by_slug("mine")
    async with world.unchanged():
        assert (await world.apps.apply("mine", CONFIG.model_copy())).app_id == app_id
    changed = CONFIG.model_copy(update={"description": "New"})
    assert (await world.apps.apply("mine", changed)).app_id == app_id
    second = await world.apps.find_by_slug("mine")
    assert first is not None
    assert second is not None
    assert (second.config, second.version_id != first.version_id) == (changed, True)
    await world.apps.apply("mine", CONFIG)
    third = await world.apps.find_by_slug("mine")
    assert third is not None
    assert third.config == CONFIG
    assert third.version_id not in (first.version_id, second.version_id), "versions are never reused"


async def test_processes_that_start_together_make_one_app_and_one_key(world: World) -> None:
    apps, versions = await count(world, "apps"), await count(world, "app_versions")
    applied = await asyncio.gather(*(world.apps.apply("mine", CONFIG) for _ in range(6)))
    assert [(one.number, one.changed) for one in applied].count((1, True)) == 1
    ids = [one.app_id for one in applied]
    assert len(set(ids)) == 1
    assert (await count(world, "apps"), await count(world, "app_versions")) == (apps + 1, versions + 1)
    keys = await asyncio.gather(*(world.keys.make_first(ids[0]) for _ in range(6)))
    assert len([key for key in keys if key]) == 1
    await asyncio.gather(*(world.keys.put(ids[0], "app-key", "settings") for _ in range(6)))
    assert await count(world, "api_keys") == 2


async def test_a_key_opens_its_app(world: World) -> None:
    await world.keys.put(world.app.id, "app-one", "")
    await world.keys.put(world.other_app.id, "app-two", "")
    assert await opened(world, "app-one") == world.app
    assert await opened(world, "app-two") == world.other_app
    for wrong in ("", "app-", "app-ONE", "app-one ", "app-one\x00", "é😀", "%"):
        assert await opened(world, wrong) is None


async def test_a_key_opens_the_current_version(world: World) -> None:
    app_id = (await world.apps.apply("mine", CONFIG)).app_id
    await world.keys.put(app_id, "key", "")
    changed = CONFIG.model_copy(update={"description": "New"})
    await world.apps.apply("mine", changed)
    app = await opened(world, "key")
    assert app is not None
    assert app.config == changed


async def test_putting_a_key_twice_stores_it_once(world: World) -> None:
    await world.keys.put(world.app.id, "key", "settings")
    async with world.unchanged():
        await world.keys.put(world.app.id, "key", "settings")


async def test_the_first_key_is_created_once(world: World) -> None:
    key = await world.keys.make_first(world.app.id)
    assert key is not None
    assert key.startswith("app-")
    assert len(key) > 40
    assert await opened(world, key) == world.app
    assert await world.keys.make_first(world.app.id) is None
    other = await world.keys.make_first(world.other_app.id)
    assert other not in (None, key)


async def test_a_key_is_never_stored(world: World) -> None:
    key = await world.keys.make_first(world.app.id)
    assert key is not None
    assert key not in str(await world.everything())


async def test_a_revoked_key_opens_nothing(world: World) -> None:
    await world.keys.put(world.app.id, "key", "")
    await world.execute(update(TABLES["api_keys"]).values(revoked_at=now_plus()))
    assert await opened(world, "key") is None


async def test_another_secret_finds_no_key(world: World) -> None:
    await world.keys.put(world.app.id, "key", "")
    assert await KeyStore(world.database, b"another").find("key") is None


async def test_the_built_in_app_does_not_replace_an_applied_one(world: World) -> None:
    async def put(config: AppConfig, *, built_in: bool) -> bool:
        return (await world.apps.apply("default", config, built_in=built_in)).changed

    assert await put(default_app("chat"), built_in=True)
    assert not await put(default_app("chat"), built_in=True)
    assert await put(default_app("agent"), built_in=True)
    assert await put(CONFIG, built_in=False)
    assert not await put(default_app("chat"), built_in=True)
    assert await put(default_app("chat"), built_in=False)
    assert await put(default_app("agent"), built_in=True)


async def test_a_release_with_new_app_keys_makes_no_new_version(world: World) -> None:
    """A version that was stored without them is the same app."""
    app_id = (await world.apps.apply("mine", CONFIG)).app_id
    stored = json.loads(CONFIG.model_dump_json(exclude={"on_change", "limits"}))
    versions = TABLES["app_versions"]
    mine = versions.c.app_id == app_id
    await world.execute(update(versions).where(mine).values(config=json.dumps({**stored, "later": 1})))
    assert not (await world.apps.apply("mine", CONFIG)).changed


async def test_an_expired_key_opens_nothing(world: World) -> None:
    key_id, key = await world.keys.make(world.app.id, "short", 60)
    assert await opened(world, key) == world.app
    await world.execute(update(TABLES["api_keys"]).values(expires_at=now_plus(-1)))
    assert await opened(world, key) is None
    [listed] = await world.keys.all_of(world.app.id)
    assert (listed.id, listed.label, listed.expired, listed.revoked_at) == (key_id, "short", True, None)


async def test_revoking_a_key_twice_changes_nothing(world: World) -> None:
    key_id, key = await world.keys.make(world.app.id, "")
    assert await world.keys.revoke(key_id) is True
    async with world.unchanged():
        assert await world.keys.revoke(key_id) is False
        assert await world.keys.revoke(KeyId(new_id())) is None
    assert await opened(world, key) is None


async def test_the_keys_of_a_deleted_app_open_nothing(world: World) -> None:
    _, key = await world.keys.make(world.app.id, "")
    _, other = await world.keys.make(world.other_app.id, "")
    turn = await world.begin()
    assert await world.apps.delete(world.app.id) == 1
    assert await opened(world, key) is None
    assert await opened(world, other) == world.other_app
    assert (await world.row(turn)).stop_reason == "app deleted"
    assert await world.apps.find_by_slug("one") is None
    assert [app.slug for app in await world.apps.all()] == ["two"]
