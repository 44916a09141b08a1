"""Who a request is from: the app that its API key opens, or the ticket that it carries.

The key is in the header, or in the cookie of the playground (routes/http/sessions.py).
"""

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
ticket_query = APIKeyQuery(
    name="ticket",
    auto_error=False,
    scheme_name="Ticket",
    description="A signed, expiring ticket for one turn or one file, as in the URLs that the service "
    "gives out: instead of an API key.",
)
TicketText = Annotated[str | None, Security(ticket_query)]


async def read_key(
    request: Request,
    state: StateDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> str | None:
    """The API key of a request; None without one. A header counts, and without it the cookie."""
    if credentials is not None:
        return credentials.credentials
    # A ticket says all, wherever the page is that has it.
    if state.sessions is None or "ticket" in request.query_params:
        return None
    return state.sessions.key_of(request)


ApiKeyText = Annotated[str | None, Depends(read_key)]


async def get_app(state: StateDep, api_key: ApiKeyText) -> App:
    """The app whose key the request carries."""
    return await state.keys.open(_required(state, api_key))


async def check_key(request: Request) -> None:
    """Raise what `get_app` raises when the key of this request opens no app; for the middleware."""
    state = await get_state(request)
    await get_app(state, await read_key(request, state, await bearer(request)))


UncountedAppDep = Annotated[App, Depends(get_app)]
"""For requests that the rate of a key must not stop: stopping a turn, and repeating a request."""


async def count_request(app: UncountedAppDep, state: StateDep, api_key: ApiKeyText) -> App:
    """The app whose key the request carries, once it was counted against the key's rate."""
    await count_key(state, api_key)
    return app


AppDep = Annotated[App, Depends(count_request)]
"""For every other request."""


async def count_key(state: AppState, api_key: str | None) -> None:
    """Count a request against the rate of its key; TooManyRequests when there were too many."""
    await state.keys.count(_required(state, api_key))


def _required(state: AppState, api_key: str | None) -> str:
    if not api_key:
        raise Unauthorized("Authorization header must be provided and must be 'Bearer <api key>'.")
    if not state.installed.is_set():
        raise Unavailable("The service is not ready yet. Please try again.")
    return api_key
