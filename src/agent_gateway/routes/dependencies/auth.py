"""Who a request is from: the app that its API key opens, or the ticket that it carries."""

from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from agent_gateway.domain.turns import App
from agent_gateway.errors import Unauthorized, Unavailable
from agent_gateway.routes.dependencies.state import AppState, StateDep, get_state

DEFAULT_USER: Final = "DEFAULT-USER"
"""The end user of a GET without `user`."""

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


async def get_app(state: StateDep, credentials: Credentials) -> App:
    """The app whose key the request carries."""
    return await state.keys.open(_key(state, credentials))


async def check_key(request: Request) -> None:
    """Raise what `get_app` raises when the key of this request opens no app; for the middleware."""
    await get_app(await get_state(request), await bearer(request))


UncountedAppDep = Annotated[App, Depends(get_app)]
"""For requests that the rate of a key must not stop: stopping a turn, and repeating a request."""


async def count_request(app: UncountedAppDep, state: StateDep, credentials: Credentials) -> App:
    """The app whose key the request carries, once it was counted against the key's rate."""
    await count_key(state, credentials)
    return app


AppDep = Annotated[App, Depends(count_request)]
"""For every other request."""


async def count_key(state: AppState, credentials: HTTPAuthorizationCredentials | None) -> None:
    """Count a request against the rate of its key; TooManyRequests when there were too many."""
    await state.keys.count(_key(state, credentials))


def _key(state: AppState, credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None or not credentials.credentials:
        raise Unauthorized("Authorization header must be provided and must be 'Bearer <api key>'.")
    if not state.installed.is_set():
        raise Unavailable("The service is not ready yet. Please try again.")
    return credentials.credentials
