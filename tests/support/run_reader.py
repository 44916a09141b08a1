"""Readers of a backend's runs, as the runner is one."""

import asyncio
from types import TracebackType
from typing import Self

from agent_gateway.backend.protocol import Backend, RunEvent
from agent_gateway.domain.ids import RunId


async def events_of(backend: Backend, run_id: RunId) -> list[RunEvent]:
    """All events of a run, up to its terminal one."""
    events: list[RunEvent] = []
    await backend.stream(run_id, events.extend)
    return events


class Reader:
    """Reads a run in a task of its own while the block runs; `batch` gives what it got, read by read."""

    def __init__(self, backend: Backend, run_id: RunId) -> None:
        self._backend = backend
        self._run_id = run_id
        self._batches: asyncio.Queue[list[RunEvent]] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        stream = self._backend.stream(self._run_id, self._batches.put_nowait)
        self._reading = asyncio.ensure_future(stream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def batch(self) -> list[RunEvent]:
        """The next batch. When there is none because reading failed, that is raised."""
        getting = asyncio.ensure_future(self._batches.get())
        await asyncio.wait({getting, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            await self.end()
            raise AssertionError("the stream ended without another batch")
        return getting.result()

    async def end(self) -> None:
        """Wait for the end of the stream. Raises what reading raises, and fails for a batch nobody took."""
        await asyncio.shield(self._reading)
        assert self._batches.empty()
