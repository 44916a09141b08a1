"""The embedded backend: it implements `protocol.Backend` with runs in this process."""

import asyncio
from collections.abc import Sequence
from typing import Final

from agent_gateway.backend.embedded.load_agent import Agents
from agent_gateway.backend.embedded.runs import Cancellation, Stopping
from agent_gateway.backend.embedded.runs.log import RunLog
from agent_gateway.backend.embedded.runs.registry import Runs
from agent_gateway.backend.embedded.runs.run import FROM_START, LoggedEvent, parse_cursor
from agent_gateway.backend.generations import in_generation
from agent_gateway.backend.protocol import (
    START,
    CreateRunRequest,
    Cursors,
    OnEvents,
    decode_event,
)
from agent_gateway.domain.ids import RunId
from agent_gateway.errors import BackendUnreachable, RunLost, StoreError, StoreUnavailable
from agent_gateway.retry import jittered

DEMO_PACE: Final = 0.025
"""Seconds between two words of the demo agent: fast, but slow enough to be seen as a stream."""
RETRY_SECONDS: Final = 0.5
"""Pause between two tries to read a run while the log cannot be read."""


class EmbeddedBackend:
    """Runs agents in this process. Their events are in the log, where every process can read them.

    `model` is a model string of pydantic-ai (`openai:gpt-5-mini`); empty means the offline demo agent,
    which waits `pace` seconds between words. With `runs_code` its compositions may name programs, functions
    and files of this machine. With `agents`, those run in place of the built-in ones, and the model is not
    looked at. Raises ConfigError when the model cannot be used.
    """

    outlives_process = False

    def __init__(
        self,
        model: str,
        log: RunLog,
        *,
        pace: float = DEMO_PACE,
        log_ends: bool = False,
        runs_code: bool = True,
        agents: Agents | None = None,
    ) -> None:
        if agents is None:
            # The agent framework takes seconds to import, so it is imported only when agents run here.
            from agent_gateway.backend.embedded.agent.builtin import EmbeddedAgents

            agents = EmbeddedAgents(model, pace, runs_code=runs_code)
        self._agents = agents
        self.runs = Runs(self._agents.execute, log, log_ends=log_ends)

    async def takes_files(self) -> bool:
        """It does."""
        return True

    async def create_run(self, request: CreateRunRequest) -> RunId:
        """Start a run; raises BackendUnreachable (nothing sent) when the process is going down."""
        try:
            return (await self.runs.create(in_generation(request, 1))).id
        except Stopping:
            raise BackendUnreachable("the embedded backend is stopping", nothing_sent=True) from None
        except StoreError as error:
            raise BackendUnreachable(f"the run log cannot be written: {error}") from None

    async def stream(self, run_id: RunId, on_events: OnEvents, after: Cursors = START) -> None:
        """Hand over the events of a run after a resume point, up to the terminal one. Raises RunLost.

        While the log cannot be read it tries again, for as long as its caller waits.
        """
        number = parse_cursor(after[1]) if after[1] else FROM_START

        def take(events: Sequence[LoggedEvent]) -> None:
            nonlocal number
            number = events[-1].number
            on_events([decode_event(event.body) for event in events])

        while True:
            try:
                async with self.runs.opened(run_id) as run:
                    await run.read(number, take)
                return
            except (StoreUnavailable, BackendUnreachable):
                await asyncio.sleep(jittered(RETRY_SECONDS))
            except StoreError as error:
                raise BackendUnreachable(f"the run log cannot be read: {error}") from None

    async def cancel(self, run_id: RunId) -> None:
        """Cancel a run. A run that has finished or is unknown is no error."""
        try:
            await self.runs.cancel(run_id, Cancellation("user", "stopped by the user"))
        except RunLost:
            return
        except StoreError as error:
            raise BackendUnreachable(f"the run log cannot be written: {error}") from None

    async def aclose(self) -> None:
        """End all runs (`run_failed`, reason `shutdown`), then close the connections to providers."""
        await self.runs.aclose()
        await self._agents.aclose()


def check_model(model: str) -> None:
    """Raise ConfigError when this model cannot be used, for example without its API key."""
    from agent_gateway.backend.embedded.agent.builtin import EmbeddedAgents

    EmbeddedAgents(model, DEMO_PACE)
