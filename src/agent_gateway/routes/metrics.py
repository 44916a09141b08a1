"""The metrics of this process, or of all workers that share its port, for Prometheus."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Response

from agent_gateway import metrics
from agent_gateway.routes.dependencies.state import StateDep

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def get_metrics(state: StateDep, accept: Annotated[str, Header()] = "") -> Response:
    """In the text format that was asked for. Not for clients: a proxy should not pass it on."""
    state.sample()
    # In a thread: with several workers it reads the files of all.
    body, media_type = await asyncio.to_thread(metrics.exposition, accept)
    return Response(body, headers={"Content-Type": media_type})
