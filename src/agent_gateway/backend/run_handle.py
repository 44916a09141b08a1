"""A run that this process creates at the backend. A lost request must not leave an unknown run there (R4)."""

import asyncio
import logging

from agent_gateway.backend.protocol import Backend, CreateRunRequest
from agent_gateway.domain.ids import RunId
from agent_gateway.errors import BackendError, TurnError

logger = logging.getLogger(__name__)


class RunHandle:
    """Creates one run, and owns the task of its creation."""

    def __init__(self, backend: Backend, cancel_seconds: float) -> None:
        self._backend = backend
        self._cancel_seconds = cancel_seconds
        self._creation: asyncio.Future[RunId] | None = None

    async def create(self, request: CreateRunRequest) -> RunId:
        """Create the run. If this wait is cancelled, the request continues until `abandon`.

        Raises BackendError, and TurnError when no request can be composed.
        """
        self._creation = asyncio.ensure_future(self._backend.create_run(request))
        return await asyncio.shield(self._creation)

    async def abandon(self) -> RunId | None:
        """Send no further request; returns the run that was made, or None.

        It waits for a request that is on its way, within a bound: otherwise nothing would cancel its run.
        """
        if self._creation is None:
            return None
        self._creation.cancel()
        try:
            async with asyncio.timeout(self._cancel_seconds):
                return await self._creation
        except (BackendError, TurnError, TimeoutError, asyncio.CancelledError):
            return None


async def cancel_quietly(backend: Backend, run_id: RunId, seconds: float) -> bool:
    """Ask the backend to cancel a run, within a bound; a failure is logged and False, never raised."""
    try:
        async with asyncio.timeout(seconds):
            await backend.cancel(run_id)
    except Exception as error:  # noqa: BLE001 - in a task group, one failure would end every turn
        logger.warning("the cancel failed: %s", type(error).__name__, extra={"run_id": run_id})
        return False
    return True
