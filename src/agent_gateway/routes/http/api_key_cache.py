"""Which app an API key opens, remembered for a while; and how often a key is used."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from agent_gateway.domain.ids import KeyId
from agent_gateway.domain.turns import App
from agent_gateway.errors import StoreError, TooManyRequests, Unauthorized
from agent_gateway.routes.http.tickets import Clock
from agent_gateway.store.keys import KeyStore, OpenedKey

KEY_SECONDS: Final = 30.0
"""How long a found key is believed without asking the database again."""
MAX_KEYS: Final = 10_000


@dataclass(slots=True)
class ApiKeyCache:
    """Finds apps by API key, remembering those it found for KEY_SECONDS; counts their use."""

    keys: KeyStore
    clock: Clock
    _known: dict[str, tuple[OpenedKey, float]] = field(default_factory=dict)
    _used: set[KeyId] = field(default_factory=set)
    _looking: dict[str, asyncio.Future[OpenedKey | None]] = field(default_factory=dict)

    async def open(self, key: str) -> App:
        """The app this key opens; Unauthorized when there is none."""
        opened = await self._find(key)
        self._used.add(opened.id)
        return opened.app

    async def count(self, key: str) -> None:
        """Count a request with this key; TooManyRequests when there were too many in this minute."""
        opened = await self._find(key)
        most = opened.app.config.limits.requests_per_minute
        if most is not None and await self.keys.count_request(opened.id) > most:
            next_minute = 60 - int(self.clock()) % 60
            raise TooManyRequests("Too many requests with this API key. Please try again later.", next_minute)

    async def write_use(self) -> None:
        """Store which keys were used since the last time."""
        used, self._used = self._used, set()
        if not used:
            return
        try:
            await self.keys.write_use(used)
        except StoreError:
            self._used |= used
            raise

    async def _find(self, key: str) -> OpenedKey:
        now = monotonic()
        opened, until = self._known.get(key, (None, 0.0))
        if opened is not None and now < until:
            return opened
        # When many come at once, one of them looks.
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = asyncio.ensure_future(self.keys.find(key))
            looking.add_done_callback(lambda _: self._looking.pop(key, None))
        opened = await asyncio.shield(looking)
        if opened is None:
            self._known.pop(key, None)
            raise Unauthorized("Access token is invalid.")
        if len(self._known) >= MAX_KEYS:
            self._known.clear()
        self._known[key] = (opened, now + KEY_SECONDS)
        return opened
