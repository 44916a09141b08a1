"""Which app an API key opens, remembered for a while; and how often a key is used."""

from typing import Final

from async_lru import alru_cache

from agent_gateway.domain.ids import KeyId
from agent_gateway.domain.turns import App
from agent_gateway.errors import StoreError, TooManyRequests, Unauthorized
from agent_gateway.limits import RequestLimits
from agent_gateway.routes.http.sessions import SESSION_SECONDS
from agent_gateway.routes.http.tickets import Clock
from agent_gateway.store.apps import DEFAULT_SLUG
from agent_gateway.store.keys import KeyStore, OpenedKey

SESSION_LABEL: Final = "a browser at the playground"


class ApiKeyCache:
    """Finds apps by API key, remembering those it found for a while; counts their use.

    Requests with one key that come at once share one look-up. A look-up that fails is not remembered. Of too
    many keys, those that were used last are remembered.
    """

    def __init__(self, keys: KeyStore, clock: Clock, limits: RequestLimits) -> None:
        self._keys = keys
        self._clock = clock
        self._used: set[KeyId] = set()
        self._find = alru_cache(maxsize=limits.max_keys, ttl=limits.key_seconds)(self._look_up)

    async def open(self, key: str) -> App:
        """The app this key opens; Unauthorized when there is none."""
        opened = await self._find(key)
        self._used.add(opened.id)
        return opened.app

    async def count(self, key: str) -> None:
        """Count a request with this key; TooManyRequests when there were too many in this minute."""
        opened = await self._find(key)
        most = opened.app.config.limits.requests_per_minute
        if most is not None and await self._keys.count_request(opened.id) > most:
            next_minute = 60 - int(self._clock()) % 60
            raise TooManyRequests("Too many requests with this API key. Please try again later.", next_minute)

    async def sign_in(self, key_id: KeyId) -> str | None:
        """Make the key of this id, by which a browser opens the default app; None when it was made before."""
        return await self._keys.make_once(DEFAULT_SLUG, key_id, SESSION_LABEL, SESSION_SECONDS)

    async def sign_out(self, key: str) -> None:
        """Revoke a key, for this process at once."""
        opened = await self._find(key)
        await self._keys.revoke(opened.id)
        self._find.cache_invalidate(key)

    async def write_use(self) -> None:
        """Store which keys were used since the last time."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            await self._keys.write_use(used)
        except StoreError:
            self._used |= used
            raise

    async def _look_up(self, key: str) -> OpenedKey:
        opened = await self._keys.find(key)
        if opened is None:
            raise Unauthorized("Access token is invalid.")
        return opened
