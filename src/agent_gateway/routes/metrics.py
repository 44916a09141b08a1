"""The metrics of this process, or of all workers that share its port, for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from agent_gateway import metrics
from agent_gateway.routes.dependencies.state import StateDep

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def get_metrics(state: StateDep, accept: Annotated[str, Header()] = "") -> Response:
    """In the text format that was asked for. Not for clients: a proxy should not pass it on."""
    state.sample()
    body, media_type = metrics.exposition(accept)
    return Response(body, headers={"Content-Type": media_type})
