"""What routes are given: the running gateway, and the authenticated caller."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from agent_gateway.domain import App
from agent_gateway.errors import Unauthorized, Unavailable
from agent_gateway.filetypes import SizeLimits
from agent_gateway.routes.payloads import Encoder, WireForm
from agent_gateway.routes.tickets import FileTickets, Tickets
from agent_gateway.store.apps import AppStore
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.database import Database
from agent_gateway.store.files import FileStore
from agent_gateway.store.turns import TurnStore
from agent_gateway.turns.live import LiveTurns

DEFAULT_USER: Final = "DEFAULT-USER"
"""Who a GET without `user` is for."""
KEY_SECONDS: Final = 30.0
"""How long a found key is believed without asking the database again."""
MOST_KEYS: Final = 10_000


@dataclass(slots=True)
class KeyRing:
    """Finds apps by API key, remembering those it found for KEY_SECONDS."""

    apps: AppStore
    _known: dict[str, tuple[App, float]] = field(default_factory=dict)

    async def open(self, key: str) -> App:
        """The app this key opens; Unauthorized when there is none."""
        now = monotonic()
        app, until = self._known.get(key, (None, 0.0))
        if app is not None and now < until:
            return app
        app = await self.apps.find_by_key(key)
        if app is None:
            self._known.pop(key, None)
            raise Unauthorized("Access token is invalid.")
        if len(self._known) >= MOST_KEYS:
            self._known.clear()
        self._known[key] = (app, now + KEY_SECONDS)
        return app


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that lives as long as the service does."""

    installed: asyncio.Event
    """Set once the schema is current and the default app is in place."""
    database: Database
    turns: TurnStore
    apps: AppStore
    conversations: ConversationStore
    live: LiveTurns[WireForm]
    keys: KeyRing
    tickets: Tickets
    files: FileStore
    file_tickets: FileTickets
    file_sizes: SizeLimits
    encoder: Encoder
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
    if credentials is None or not credentials.credentials:
        raise Unauthorized("Authorization header must be provided and must be 'Bearer <api key>'.")
    if not gateway.installed.is_set():
        raise Unavailable("The service is not ready yet. Please try again.")
    return await gateway.keys.open(credentials.credentials)


AppDep = Annotated[App, Depends(get_app)]
