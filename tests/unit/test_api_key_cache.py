"""The cache of API keys, over a store that answers when the test lets it."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest
from typing_extensions import override

from agent_gateway.apps.config import default_app
from agent_gateway.domain.ids import AppId, AppVersionId, KeyId
from agent_gateway.domain.turns import App
from agent_gateway.errors import StoreUnavailable, Unauthorized
from agent_gateway.limits import RequestLimits
from agent_gateway.routes.http.api_key_cache import ApiKeyCache
from agent_gateway.store.keys import KeyStore, OpenedKey

APP = App(AppId("an-app"), AppVersionId("a-version"), default_app())


class Keys(KeyStore):
    """Knows one key."""

    def __init__(self) -> None:
        self.known = {"app-known"}
        self.away = False
        self.looked_up: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()

    @override
    async def find(self, key: str) -> OpenedKey | None:
        self.looked_up.append(key)
        self.asked.set()
        await self.answers.wait()
        if self.away:
            raise StoreUnavailable("away")
        return OpenedKey(KeyId(key), APP) if key in self.known else None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def keys(anyio_backend: str) -> AsyncIterator[Keys]:
    async with asyncio.timeout(20):
        yield Keys()


@pytest.fixture
def cache(keys: Keys) -> ApiKeyCache:
    return ApiKeyCache(keys, lambda: 0.0, RequestLimits())


@pytest.mark.anyio
async def test_a_known_key_is_looked_up_once(keys: Keys, cache: ApiKeyCache) -> None:
    assert [await cache.open("app-known") for _ in range(3)] == [APP] * 3
    keys.known.clear()
    assert await cache.open("app-known") == APP, "it is remembered"
    assert keys.looked_up == ["app-known"]


@pytest.mark.anyio
async def test_a_revoked_key_is_refused_once_its_entry_has_expired(
    keys: Keys,
) -> None:
    cache = ApiKeyCache(keys, lambda: 0.0, RequestLimits(key_seconds=0.01))
    assert await cache.open("app-known") == APP
    keys.known.clear()

    async def until_refused() -> None:
        for _ in count():
            await cache.open("app-known")
            await asyncio.sleep(0.001)

    with pytest.raises(Unauthorized):
        await until_refused()


@pytest.mark.anyio
async def test_an_unknown_key_is_looked_up_each_time(keys: Keys, cache: ApiKeyCache) -> None:
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await cache.open("app-new")
    keys.known.add("app-new")
    assert await cache.open("app-new") == APP


@pytest.mark.anyio
async def test_a_failed_lookup_is_not_cached(keys: Keys, cache: ApiKeyCache) -> None:
    keys.away = True
    with pytest.raises(StoreUnavailable):
        await cache.open("app-known")
    keys.away = False
    assert await cache.open("app-known") == APP


@pytest.mark.anyio
async def test_concurrent_requests_share_one_lookup(keys: Keys, cache: ApiKeyCache) -> None:
    keys.answers.clear()
    waiting = [asyncio.create_task(cache.open("app-known")) for _ in range(100)]
    await keys.asked.wait()
    keys.answers.set()
    assert await asyncio.gather(*waiting) == [APP] * 100
    assert keys.looked_up == ["app-known"]


@pytest.mark.anyio
async def test_a_cancelled_request_does_not_fail_the_others(keys: Keys, cache: ApiKeyCache) -> None:
    """Neither the one that began the look-up, nor all that were there before: the next one looks anew."""
    keys.answers.clear()
    first, second = (asyncio.create_task(cache.open("app-known")) for _ in range(2))
    await keys.asked.wait()
    first.cancel()
    await asyncio.wait([first])
    keys.answers.set()
    assert await second == APP
    assert first.cancelled()

    keys.answers.clear()
    keys.asked.clear()
    only = asyncio.create_task(cache.open("app-other"))
    await keys.asked.wait()
    only.cancel()
    await asyncio.wait([only])
    keys.known.add("app-other")
    keys.answers.set()
    assert await cache.open("app-other") == APP


@pytest.mark.anyio
async def test_the_least_recently_used_key_is_evicted_first(
    keys: Keys,
) -> None:
    cache = ApiKeyCache(keys, lambda: 0.0, RequestLimits(max_keys=2))
    keys.known |= {"app-b", "app-c"}
    for key in ("app-known", "app-b", "app-known", "app-c"):
        await cache.open(key)
    keys.looked_up.clear()
    await cache.open("app-known")
    assert keys.looked_up == []
    await cache.open("app-b")
    assert keys.looked_up == ["app-b"]
