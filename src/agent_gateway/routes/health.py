"""Probes: is the process alive, and should it get traffic."""

from fastapi import APIRouter

from agent_gateway.errors import Unavailable
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import error_responses
from agent_gateway.routes.schemas.base import Health

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="getHealth", summary="Alive", response_description="Alive.")
async def get_healthz() -> Health:
    """The process answers. Touches nothing else, so a database outage does not restart it."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Ready",
    response_description="Ready for traffic.",
    responses=error_responses(503),
)
async def get_readyz(state: StateDep) -> Health:
    """The database serves this process with a schema it can use, and the process is not draining."""
    if state.live.draining.is_set():
        raise Unavailable("This server is shutting down.")
    await state.database.ping()
    if not state.installed.is_set():
        raise Unavailable(state.installed.missing)
    await state.maintenance.prove()
    return Health(status="ok")
