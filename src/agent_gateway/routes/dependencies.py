"""What routes are given: the running gateway, and the authenticated caller."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from agent_gateway.domain.ids import KeyId
from agent_gateway.domain.turns import App
from agent_gateway.errors import StoreError, TooManyRequests, Unauthorized, Unavailable
from agent_gateway.filetypes import SizeLimits
from agent_gateway.routes.http.tickets import Clock, FileTickets, Tickets
from agent_gateway.routes.streams.frames import Frames
from agent_gateway.store.apps import AppStore
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.end_users import EndUserStore
from agent_gateway.store.feedbacks import FeedbackStore
from agent_gateway.store.files import FileStore
from agent_gateway.store.keys import KeyStore, OpenedKey
from agent_gateway.store.question_forms import FormStore
from agent_gateway.store.turns.facade import TurnStore
from agent_gateway.turns.auxiliary_runs import AuxiliaryRuns
from agent_gateway.turns.form_waiters import FormWaiters
from agent_gateway.turns.maintenance import Maintenance
from agent_gateway.turns.outbox_worker import OutboxWorker
from agent_gateway.turns.registry import LiveTurns

DEFAULT_USER: Final = "DEFAULT-USER"
"""Who a GET without `user` is for."""
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


class Installed(asyncio.Event):
    """Set when the database can be used and the default app is in place."""

    missing: str = "The database schema is behind: run `agent-gateway migrate`."
    """Why not yet; the text is for operators, and safe."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = asyncio.Event()
        """Set once the first attempt is over, however it ended."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that lives as long as the service does."""

    installed: Installed
    """Set once the schema is current and the default app is in place."""
    database: Database
    turns: TurnStore
    apps: AppStore
    conversations: ConversationStore
    feedbacks: FeedbackStore
    end_users: EndUserStore
    forms: FormStore
    answers: FormWaiters
    live: LiveTurns
    duties: Maintenance
    auxiliary_runs: AuxiliaryRuns
    errands: OutboxWorker
    keys: ApiKeyCache
    tickets: Tickets
    files: FileStore
    file_tickets: FileTickets
    file_sizes: SizeLimits
    frames: Frames
    ping_seconds: float


async def get_gateway(request: Request) -> Gateway:
    """The gateway that serves this request. Async, or it would be run in a thread."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(get_gateway)]

bearer = HTTPBearer(
    auto_error=False, scheme_name="ApiKey", description="API key of an app: `Authorization: Bearer <key>`."
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]

ticket_query = APIKeyQuery(
    name="ticket",
    auto_error=False,
    scheme_name="Ticket",
    description="A signed, expiring ticket for one turn or one file, as in the URLs that the service "
    "gives out: instead of an API key.",
)
TicketText = Annotated[str | None, Security(ticket_query)]


async def get_app(gateway: GatewayDep, credentials: Credentials) -> App:
    """The app whose key the request carries."""
    return await gateway.keys.open(_key(gateway, credentials))


UncountedAppDep = Annotated[App, Depends(get_app)]
"""For what must work whatever the key's rate is: stopping a turn, and repeating a request."""


async def count_request(app: UncountedAppDep, gateway: GatewayDep, credentials: Credentials) -> App:
    """The app whose key the request carries, once it was counted against the key's rate."""
    await gateway.keys.count(_key(gateway, credentials))
    return app


AppDep = Annotated[App, Depends(count_request)]
"""For every other request."""


def _key(gateway: Gateway, credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None or not credentials.credentials:
        raise Unauthorized("Authorization header must be provided and must be 'Bearer <api key>'.")
    if not gateway.installed.is_set():
        raise Unavailable("The service is not ready yet. Please try again.")
    return credentials.credentials
