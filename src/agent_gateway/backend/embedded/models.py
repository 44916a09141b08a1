"""The models of this process: made from the names and keys that apps give, with the settings of a run."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic_ai import Agent
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.providers import Provider, infer_provider_class
from pydantic_ai.settings import ModelSettings

from agent_gateway.backend.embedded.demo import demo_agent
from agent_gateway.backend.embedded.layers import ModelConfig
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.errors import ConfigError

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
    "max_retries": "max_retries",
}
"""The names that the agent framework has for the keys of a model layer."""
_UNUSABLE: Final = (UserError, ImportError, ValueError, TypeError)
"""What the framework raises for a model that it cannot make."""


class ModelKey(NamedTuple):
    """Which model it is. Two apps with the same values share its connections."""

    model: str
    api_key: str | None = None
    base_url: str | None = None
    fallbacks: tuple[str, ...] = ()


class Models:
    """An agent for each model that was asked for lately. The empty name is the offline demo agent.

    Raises ConfigError when the default model cannot be used, for example without its API key.
    """

    def __init__(self, default: str, pace: float) -> None:
        self.default = default
        self._pace = pace
        self._agents: dict[ModelKey, Agent[object, str]] = {}
        try:
            self._agent(ModelKey(default))
        except _UNUSABLE as error:
            raise ConfigError(f"The model {default!r} cannot be used: {error}") from None

    def name_of(self, config: ModelConfig) -> str:
        """The model of a run; empty for the demo agent."""
        return config.model or self.default

    def agent(self, config: ModelConfig) -> Agent[object, str]:
        """The agent of a run; raises RunFailed when its model cannot be used."""
        name = self.name_of(config)
        key = ModelKey(name, config.api_key or None, config.base_url or None, tuple(config.fallback_models))
        try:
            return self._agent(key)
        except _UNUSABLE as error:
            # The framework's text may name the variable of a key, so only the kind of error is shown.
            kind = type(error).__name__
            raise RunFailed(
                f"the model {name[:MAX_SHOWN]!r} cannot be used ({kind})",
                "ModelNotFoundError",
                f"the model of the composition cannot be used ({kind})",
            ) from None

    async def aclose(self) -> None:
        """Close the connections to the providers."""
        for agent in self._agents.values():
            if isinstance(agent.model, Model):
                async with agent.model:
                    pass  # a model closes its provider's client when its context is left

    def _agent(self, key: ModelKey) -> Agent[object, str]:
        agent = self._agents.pop(key, None)
        if agent is None:
            agent = Agent(_model(key)) if key.model else demo_agent(self._pace)
        self._agents[key] = agent  # the most recently used is last
        if len(self._agents) > MAX_AGENTS:
            del self._agents[next(one for one in self._agents if one != ModelKey(self.default))]
        return agent


def settings_of(config: ModelConfig) -> ModelSettings:
    """The settings that a model layer makes, in the form of the agent framework."""
    given = config.model_dump(exclude_none=True, include=set(_SETTINGS))
    settings = ModelSettings(**{_SETTINGS[key]: value for key, value in given.items()})
    if (effort := config.reasoning_effort) is not None:
        settings["thinking"] = False if effort == "none" else effort
    return settings


def _model(key: ModelKey) -> Model:
    def provider(name: str) -> Provider[object]:
        given = {"api_key": key.api_key, "base_url": key.base_url}
        return infer_provider_class(name)(**{name: value for name, value in given.items() if value})

    model = infer_model(key.model, provider) if key.api_key or key.base_url else infer_model(key.model)
    return FallbackModel(model, *key.fallbacks) if key.fallbacks else model
