"""Signing in to the playground by a link that works once, and signing out."""

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from agent_gateway.errors import Unauthorized, Unavailable
from agent_gateway.routes.dependencies.auth import ApiKeyText
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.middleware import HEAD_ONLY
from agent_gateway.routes.http.sessions import Sessions

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
async def get_sign_in(request: Request, state: StateDep, token: str = "") -> Response:
    """Make a key for this browser, and go on to the page. A link that was used before makes none."""
    sessions = _sessions(state.sessions)
    if not state.installed.is_set():
        raise Unavailable("The service is not ready yet. Please try again.")
    # A program that looks where a link leads must not use it up.
    key_id = None if HEAD_ONLY in request.scope else sessions.links.read(token, state.database.clock())
    key = await state.keys.sign_in(key_id) if key_id is not None else None
    response = RedirectResponse("./" if key else "./#link-used", status_code=303)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    if key:
        sessions.sign_in(request, response, key)
    return response


@router.post("/sign-out")
async def post_sign_out(request: Request, state: StateDep, api_key: ApiKeyText) -> Response:
    """Revoke the key of this browser, and remove its cookie."""
    sessions = _sessions(state.sessions)
    if api_key and sessions.key_of(request) == api_key:
        # One that opens nothing any more was signed out elsewhere: its cookie goes as well.
        with suppress(Unauthorized):
            await state.keys.sign_out(api_key)
    response = Response(status_code=204)
    sessions.sign_out(request, response)
    return response


def _sessions(sessions: Sessions | None) -> Sessions:
    """Those of the playground: these routes are only there when it is."""
    if sessions is None:
        raise Unauthorized("There is no playground.")
    return sessions
