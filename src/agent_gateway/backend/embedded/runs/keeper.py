"""Keeps the runs that this process drives: renews their leases, and hears who wants them to be cancelled."""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextvars import Context
from typing import Final

import msgspec

from agent_gateway.backend.embedded.runs.log import RunLog
from agent_gateway.backend.embedded.runs.outcomes import Cancellation
from agent_gateway.backend.embedded.runs.run import Run
from agent_gateway.errors import StoreError

LOOK_SECONDS: Final = 0.5
"""How often it looks for runs that somebody wants to be cancelled."""

logger = logging.getLogger(__name__)


class Keeper:
    """At work only while this process drives runs, and only where it shares its log with others."""

    def __init__(
        self,
        log: RunLog,
        driven: Callable[[], Collection[Run]],
        *,
        failed: Callable[[], None],
        fenced: Callable[[Run], None],
        cancel: Callable[[Run, Cancellation], None],
    ) -> None:
        """`driven` are the runs of ours that have not ended. The others are called with what it finds."""
        self._log = log
        self._driven = driven
        self._failed = failed
        self._fenced = fenced
        self._cancel = cancel
        self._pause = min(LOOK_SECONDS, log.lease_seconds / 6)
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is a run to keep."""
        if self._log.shared and self._task is None:
            self._task = asyncio.create_task(self._work(), name="run leases", context=Context())

    async def aclose(self) -> None:
        """Keep nothing any longer."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        try:
            while True:
                await asyncio.sleep(self._pause)
                if not self._driven():
                    return
                try:
                    if loop.time() - renewed >= self._log.lease_seconds / 3 - self._pause / 2:
                        await self._renew()
                        renewed = loop.time()
                    for run_id, why in (await self._log.asked_to_cancel()).items():
                        for run in self._driven():
                            if run.id == run_id:
                                self._cancel(run, Cancellation(*msgspec.json.decode(why)))
                except StoreError as error:
                    # Tried again after the same pause.
                    self._failed()
                    logger.debug("the leases of runs could not be renewed: %s", error)
        finally:
            self._task = None

    async def _renew(self) -> None:
        held = {run.held: run for run in self._driven()}
        ours = await self._log.renew(list(held))
        for (run_id, epoch), run in held.items():
            # One that is about to end may have ended in the log already.
            if run_id not in ours and run.open and run.epoch == epoch:
                self._fenced(run)
