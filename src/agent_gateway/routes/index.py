"""The root of a base URL: clients probe it to learn whether the URL is right. Browsers get the playground."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http import playground_page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def get_index(request: Request, state: StateDep, accept: Annotated[str, Header()] = "") -> Response:
    """Which API this is, and which release serves it, without a key; for browsers the playground."""
    # The page has its files beside it: below /v1 there are none.
    if state.sessions is not None and "text/html" in accept and request.url.path == "/":
        return playground_page.page()
    index = {
        "welcome": "Agent Gateway",
        "api_version": "v1",
        "server_version": version("agent-gateway"),
    }
    return JSONResponse(index, headers={"Vary": "Accept"} if state.sessions is not None else None)


@router.get("/favicon.ico")
async def get_icon() -> Response:
    """What browsers ask for by themselves."""
    return playground_page.icon()
