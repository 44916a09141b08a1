"""The embedded backend: it implements `protocol.Backend` with runs in this process."""

from typing import Final

from agent_gateway.backend.embedded.load_agent import Agents
from agent_gateway.backend.embedded.runs import FROM_START, Cancellation, Runs, Stopping, parse_cursor
from agent_gateway.backend.generations import in_generation
from agent_gateway.backend.protocol import (
    START,
    CreateRunRequest,
    Cursors,
    OnEvents,
    decode_event,
)
from agent_gateway.domain.ids import RunId
from agent_gateway.errors import BackendUnreachable, RunLost

DEMO_PACE: Final = 0.025
"""Seconds between two words of the demo agent: fast, but slow enough to be seen as a stream."""


class EmbeddedBackend:
    """Runs agents in this process. Its runs end with the process, so no other process can replay them.

    `model` is a model string of pydantic-ai (`openai:gpt-5-mini`); empty means the offline demo agent,
    which waits `pace` seconds between words. Raises ConfigError when the model cannot be used. With `agents`,
    those run in place of the built-in ones, and the model is not looked at.
    """

    replayable = False

    def __init__(
        self,
        model: str = "",
        *,
        pace: float = DEMO_PACE,
        log_ends: bool = False,
        agents: Agents | None = None,
    ) -> None:
        if agents is None:
            # The agent framework takes seconds to import, so it is imported only when agents run here.
            from agent_gateway.backend.embedded.agent import EmbeddedAgents

            agents = EmbeddedAgents(model, pace)
        self._agents = agents
        self.runs = Runs(self._agents.execute, log_ends=log_ends)

    async def create_run(self, request: CreateRunRequest) -> RunId:
        """Start a run; raises BackendUnreachable (nothing sent) when the process is going down."""
        try:
            return self.runs.create(in_generation(request, 1)).id
        except Stopping:
            raise BackendUnreachable("the embedded backend is stopping", nothing_sent=True) from None

    async def stream(self, run_id: RunId, on_events: OnEvents, after: Cursors = START) -> None:
        """Hand over the events of a run after a resume point, up to the terminal one. Raises RunLost."""
        run = self.runs.get(run_id)
        cursor = parse_cursor(after[1]) if after[1] else FROM_START
        await run.read(cursor, lambda batch: on_events([decode_event(event.body) for event in batch]))

    async def cancel(self, run_id: RunId) -> None:
        """Cancel a run. A run that has finished or is unknown is no error."""
        try:
            await self.runs.cancel(run_id, Cancellation("user", "stopped by the user"))
        except RunLost:
            return

    async def aclose(self) -> None:
        """End all runs (`run_failed`, reason `shutdown`), then close the connections to providers."""
        await self.runs.aclose()
        await self._agents.aclose()
