"""The built-in agents: each run is made from what its composition says.

Importing this module loads the agent framework (seconds): only building an `EmbeddedBackend` does.
"""

from collections.abc import Sequence

from pydantic_ai import Agent, AgentRetries
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import BinaryImage, ModelMessage
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import UsageLimits

from agent_gateway.backend.embedded.agent.content import answers_with_images
from agent_gateway.backend.embedded.agent.history import Turn, summary_of, within_limits
from agent_gateway.backend.embedded.agent.models import Models, settings_of, unfinished
from agent_gateway.backend.embedded.agent.output import FitsSchema, output_of
from agent_gateway.backend.embedded.agent.prices import Meter
from agent_gateway.backend.embedded.agent.retries import MAX_RETRIES, Retries
from agent_gateway.backend.embedded.agent.run import (
    Additions,
    ending_as_a_run,
    history_of,
    nothing_done,
    run_agent,
    with_room_for_files,
)
from agent_gateway.backend.embedded.plan import Plan, read_plan
from agent_gateway.backend.embedded.runs import Emit
from agent_gateway.backend.embedded.tools.toolsets import Tools
from agent_gateway.backend.protocol import CreateRunRequest


class EmbeddedAgents:
    """Runs the agents of this process. Raises ConfigError when the configured model cannot be used."""

    def __init__(self, model: str, pace: float, *, runs_code: bool = True) -> None:
        self._models = Models(model, pace)
        self._tools = Tools(runs_code=runs_code)

    async def execute(self, request: CreateRunRequest, emit: Emit) -> bytes:
        """Run the agent of one request and return the data of `run_succeeded` as JSON.

        Raises RunFailed, or RunInterrupted when the task was cancelled with something worth keeping.
        """
        plan = read_plan(request)
        if not plan.prompt:
            return nothing_done(plan)
        meter, default = Meter(), self._models.default
        # Another model than the configured one may be a user's choice, so errors do not name it.
        named = default if self._models.name_of(plan.model) == default else ""
        async with ending_as_a_run(plan, meter, named), self._models.agent(plan.model) as agent:
            try:
                return await self._run(plan, agent, meter, emit)
            except Exception:
                meter.breaks_off(unfinished(agent))
                raise

    async def _run(self, plan: Plan, agent: Agent[object, str], meter: Meter, emit: Emit) -> bytes:
        history = await self._history(plan, meter)
        asks_human = plan.asks_human or not self._models.name_of(plan.model)
        may_stop = asks_human or plan.tools.asks_approval
        images = plan.output is None and answers_with_images(agent.model)
        async with self._tools.of(plan.tools, asks_human=asks_human) as toolsets:
            additions = Additions(
                output_type=[
                    str if plan.output is None else output_of(plan.output),
                    *([BinaryImage] if images else []),
                    *([DeferredToolRequests] if may_stop else []),
                ],
                toolsets=toolsets,
                settings=settings_of(plan.model, agent),
                limits=UsageLimits(request_limit=plan.model.max_requests),
                retries=AgentRetries(output=plan.output.max_retries) if plan.output else None,
                capabilities=_capabilities(plan),
                hides_text=plan.output is not None,
            )
            return await run_agent(agent, plan, history, meter, emit, additions)

    async def _history(self, plan: Plan, meter: Meter) -> list[ModelMessage]:
        """The messages of earlier turns that the run continues from."""

        async def sum_up(turns: Sequence[Turn]) -> str:
            assert plan.limits.summary_model is not None
            return await summary_of(turns, plan.limits.summary_model, self._models, meter)

        return with_room_for_files(await within_limits(history_of(plan), plan.limits, sum_up), plan)

    async def aclose(self) -> None:
        """Close the connections to the model providers, and end the programs of tools."""
        await self._tools.aclose()
        await self._models.aclose()


def _capabilities(plan: Plan) -> list[AbstractCapability[object]]:
    tries = 1 + (MAX_RETRIES if plan.model.max_retries is None else plan.model.max_retries)
    fits = [] if plan.output is None else [FitsSchema(plan.output.json_schema)]
    return [Retries(tries), *fits]
