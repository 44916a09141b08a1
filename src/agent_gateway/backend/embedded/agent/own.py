"""Runs somebody's pydantic-ai `Agent`, as the built-in agents run.

Importing this module loads the agent framework, which the module of such an agent has done already.
"""

from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, infer_model
from pydantic_ai.output import OutputSpec
from pydantic_ai.tools import DeferredToolRequests

from agent_gateway.backend.embedded.agent.prices import Meter
from agent_gateway.backend.embedded.agent.run import (
    Additions,
    ending_as_a_run,
    history_of,
    nothing_done,
    run_agent,
    with_room_for_files,
)
from agent_gateway.backend.embedded.places import broken
from agent_gateway.backend.embedded.plan import NOT_OF_OWN_AGENTS, Plan, read_plan
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
from agent_gateway.backend.embedded.tools import human
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.errors import ConfigError


class OwnAgents:
    """One agent with its own model, tools and type of output. `name` is what errors call it.

    Raises ConfigError for an agent without a model, or one that needs deps.
    """

    def __init__(self, agent: AbstractAgent[Any, Any], name: str) -> None:
        _check(agent, name)
        self._agent = agent

    async def execute(self, request: CreateRunRequest, emit: Emit) -> bytes:
        """Run the agent for one request and return the data of `run_succeeded` as JSON.

        Model, tools and output of the app are ignored. Raises RunFailed or RunInterrupted.
        """
        plan = read_plan(request, ignored=NOT_OF_OWN_AGENTS)
        if not plan.prompt:
            return nothing_done(plan)
        model, meter = self._agent.model, Meter()
        name = model.model_name if isinstance(model, Model) else str(model)
        try:
            async with ending_as_a_run(plan, meter, name):
                try:
                    return await self._run(plan, meter, emit)
                except Exception:
                    meter.breaks_off(ModelResponse([]))
                    raise
        except (RunFailed, RunInterrupted):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - its tools may raise anything
            raise broken(error) from None

    async def _run(self, plan: Plan, meter: Meter, emit: Emit) -> bytes:
        history = with_room_for_files(history_of(plan), plan)
        asking = Additions(output_type=_or_question(self._agent.output_type), toolsets=[human.TOOLSET])
        additions = asking if plan.asks_human else Additions()
        return await run_agent(self._agent, plan, history, meter, emit, additions)

    async def aclose(self) -> None:
        """Close the connections to the provider of its model."""
        if isinstance(self._agent.model, Model):
            async with self._agent.model:
                pass  # a model closes its provider's client when its context is left


def _or_question(output_type: OutputSpec[Any]) -> Sequence[Any]:
    kinds: Sequence[Any] = output_type if isinstance(output_type, Sequence) else [output_type]
    return kinds if DeferredToolRequests in kinds else [*kinds, DeferredToolRequests]


def _check(agent: AbstractAgent[Any, Any], name: str) -> None:
    if not _takes_none(agent.deps_type):
        raise ConfigError(
            f"--agent {name}: the agent needs deps of the type {agent.deps_type.__name__}, and here it gets "
            "none; serve an async generator function that runs it with its deps"
        )
    if agent.model is None:
        raise ConfigError(f"--agent {name}: the agent has no model; name one in Agent(…)")
    if isinstance(agent.model, str):
        try:
            infer_model(agent.model)
        except (UserError, ImportError, ValueError) as error:
            raise ConfigError(f"--agent {name}: its model {agent.model!r} cannot be used: {error}") from None


def _takes_none(deps_type: object) -> bool:
    return deps_type in (object, Any, NoneType, None) or NoneType in get_args(deps_type)
