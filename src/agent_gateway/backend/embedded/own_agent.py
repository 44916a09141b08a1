"""Runs somebody's pydantic-ai `Agent`, as the built-in agents run.

Importing this module loads the agent framework, which the module of such an agent has done already.
"""

from types import NoneType
from typing import Any, get_args

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model

from agent_gateway.backend.embedded.agent import close, nothing_done, run_agent
from agent_gateway.backend.embedded.places import broken
from agent_gateway.backend.embedded.plan import read_plan
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
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

        The model that the app names is ignored. Raises RunFailed or RunInterrupted.
        """
        plan = read_plan(request)
        if not plan.prompt:
            return nothing_done(plan)
        model = self._agent.model
        name = model.model_name if isinstance(model, Model) else str(model)
        try:
            return await run_agent(self._agent, plan, emit, asks=plan.asks_human, model=name)
        except (RunFailed, RunInterrupted):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - its tools may raise anything
            raise broken(error) from None

    async def aclose(self) -> None:
        """Close the connections to the provider of its model."""
        await close(self._agent)


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
