"""The models of this process: made from the names and keys that apps give, with the settings of a run."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Final, NamedTuple

from pydantic_ai import Agent
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.providers import Provider
from pydantic_ai.settings import ModelSettings

from agent_gateway.backend.embedded.agent.demo import demo_agent
from agent_gateway.backend.embedded.agent.providers import Unusable, problem_of, provider_of
from agent_gateway.backend.embedded.layers import ModelConfig, OtherModel
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_AGENTS: Final = 16
"""Agents (and their connections) kept at once: users may choose the model of a composition."""
MAX_SHOWN: Final = 100
"""Characters of a model's name that an error shows."""

_SETTINGS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "stop_sequences": "stop_sequences",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "parallel_tool_calls": "parallel_tool_calls",
    "request_timeout_seconds": "request_timeout",
    "first_token_timeout_seconds": "first_event_timeout",
}
"""The names that the agent framework has for the keys of a model layer."""
_UNUSABLE: Final = (Unusable, UserError, ImportError, ValueError, TypeError)
"""What is raised for a model that cannot be made."""


class ModelKey(NamedTuple):
    """Which model it is. Two apps with the same values share its connections."""

    model: str
    api_key: str | None = None
    base_url: str | None = None
    fallbacks: tuple["ModelKey", ...] = ()


class Models:
    """An agent for each model that was asked for lately. The empty name is the offline demo agent.

    Raises ConfigError when the default model cannot be used, for example without its API key.
    """

    def __init__(self, default: str, pace: float) -> None:
        self.default = default
        self._pace = pace
        self._agents: dict[ModelKey, Agent[object, str]] = {}
        """The most recently used is last. This object is in the context of each one's model, and so is each
        run: when the last of them has left, the connections are closed."""
        try:
            self._make(ModelKey(default))
        except _UNUSABLE as error:
            why = (problem_of(default.partition(":")[0]) if ":" in default else None) or error
            raise ConfigError(f"The model {default!r} cannot be used: {why}") from None

    def name_of(self, config: ModelConfig) -> str:
        """The model of a run; empty for the demo agent."""
        return config.model or self.default

    @asynccontextmanager
    async def agent(self, config: ModelConfig | OtherModel) -> AsyncGenerator[Agent[object, str]]:
        """The agent of a run; its connections stay open meanwhile. Raises RunFailed for an unusable model."""
        key = _key(config, self.default)
        try:
            agent = self._agents.get(key) or self._make(key)
        except _UNUSABLE as error:
            # The framework's text may name the variable of a key, so only the kind of error is shown.
            why = str(error) if isinstance(error, Unusable) else type(error).__name__
            raise RunFailed(
                f"the model {key.model[:MAX_SHOWN]!r} cannot be used ({why})",
                "ModelNotFoundError",
                f"the model of the composition cannot be used ({why})",
            ) from None
        async with model_of(agent):
            await self._keep(key, agent)
            yield agent

    async def aclose(self) -> None:
        """Close the connections to the providers."""
        for key in list(self._agents):
            await self._drop(key)

    async def _keep(self, key: ModelKey, agent: Agent[object, str]) -> None:
        if self._agents.get(key) is not agent:
            await model_of(agent).__aenter__()
        if self._agents.setdefault(key, agent) is not agent:  # that of a run which began at the same time
            await model_of(agent).__aexit__(None, None, None)
            return
        self._agents[key] = self._agents.pop(key)
        while len(self._agents) > MAX_AGENTS:
            await self._drop(next(one for one in self._agents if one != ModelKey(self.default)))

    async def _drop(self, key: ModelKey) -> None:
        await model_of(self._agents.pop(key)).__aexit__(None, None, None)

    def _make(self, key: ModelKey) -> Agent[object, str]:
        return Agent(_model(key)) if key.model else demo_agent(self._pace)


def settings_of(config: ModelConfig, agent: Agent[object, str]) -> ModelSettings:
    """The settings that a model layer makes, in the form of the agent framework.

    Those that no model of the agent supports are left out; what a model ignores is logged.
    """
    given = config.model_dump(exclude_none=True, include=set(_SETTINGS))
    ignored = [_ignored_by(model, given) for model in _models_of(agent)]
    useless = frozenset.intersection(*ignored)
    named = {_SETTINGS[key]: value for key, value in given.items() if key not in useless}
    settings = ModelSettings(**named)
    if (effort := config.reasoning_effort) is not None:
        settings["thinking"] = False if effort == "none" else effort
    return settings


def _ignored_by(model: Model, given: Mapping[str, object]) -> frozenset[str]:
    ignored = frozenset(key for key in given if _SETTINGS[key] in model.unsupported_settings)
    for key in ignored:
        _log_ignored(type(model).__name__, key)
    return ignored


@cache
def _log_ignored(kind: str, key: str) -> None:
    """Once for each kind of model and key; the name of a model may be a user's words."""
    logger.warning("models of the kind %s ignore %r of their layer", kind, key)


def unfinished(agent: Agent[object, str]) -> ModelResponse:
    """What is known of a response of this agent that broke off: which model it is from, if there is one."""
    model = model_of(agent)
    if isinstance(model, FallbackModel):
        return ModelResponse([])
    try:
        url = model.base_url
    except UserError:  # some providers have none
        url = None
    return ModelResponse([], model_name=model.model_name, provider_url=url)


def model_of(agent: Agent[object, str]) -> Model:
    """The model with which an agent was made."""
    assert isinstance(agent.model, Model)
    return agent.model


def _models_of(agent: Agent[object, str]) -> list[Model]:
    model = model_of(agent)
    return model.models if isinstance(model, FallbackModel) else [model]


def _key(config: ModelConfig | OtherModel, default: str) -> ModelKey:
    others = config.fallback_models if isinstance(config, ModelConfig) else []
    return ModelKey(
        config.model or default,
        config.api_key or None,
        config.base_url or None,
        tuple(_key(other, "") for other in others),
    )


def _model(key: ModelKey) -> Model:
    make: Callable[[str], Provider[object]] = partial(provider_of, api_key=key.api_key, base_url=key.base_url)
    model = infer_model(key.model, make) if key.api_key or key.base_url else infer_model(key.model)
    return FallbackModel(model, *map(_model, key.fallbacks)) if key.fallbacks else model
