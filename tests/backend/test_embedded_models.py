"""Models and their connections: shared by runs, bounded, and closed when the last run has left."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai.models.openai import OpenAIChatModel

from agent_gateway.backend.embedded.agent.models import MAX_AGENTS, ModelKey, Models, model_of
from agent_gateway.backend.embedded.layers import ModelConfig
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.errors import ConfigError
from tests.support.fakes.model_server import ModelServer

pytestmark = pytest.mark.anyio
DEFAULT = ModelKey("openai-chat:m")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def models(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Models]:
    async with ModelServer() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        models = Models(DEFAULT.model, 0)
        yield models
        await models.aclose()


def client_of(agent: Any) -> Any:
    model = model_of(agent)
    assert isinstance(model, OpenAIChatModel)
    return model.client


def config(**given: Any) -> ModelConfig:
    return ModelConfig.model_validate(given)


async def test_runs_of_the_same_model_share_its_connections(models: Models) -> None:
    wish = config(model="openai-chat:a", temperature=0.5)
    async with models.agent(wish) as first:
        pass
    assert not client_of(first).is_closed()
    async with models.agent(config(model="openai-chat:a")) as second:
        assert second is first


@pytest.mark.parametrize(
    "more",
    [
        {"api_key": "another"},
        {"base_url": "http://127.0.0.1:1/v1"},
        {"fallback_models": ["openai-chat:b"]},
        {"fallback_models": [{"model": "openai-chat:b", "api_key": "another"}]},
    ],
)
async def test_another_key_address_or_fallback_is_another_agent(models: Models, more: dict[str, Any]) -> None:
    one = {"model": "openai-chat:a", "fallback_models": [{"model": "openai-chat:b", "api_key": "k"}]}
    async with models.agent(config(**one)) as first, models.agent(config(**one | more)) as second:
        assert first is not second


async def test_a_dropped_model_is_closed_when_its_last_run_has_left(models: Models) -> None:
    async with models.agent(config()) as default, models.agent(config(model="openai-chat:busy")) as busy:
        async with models.agent(config(model="openai-chat:idle")) as idle:
            pass
        for number in range(MAX_AGENTS):
            async with models.agent(config(model=f"openai-chat:n{number}")):
                pass
        assert len(models._agents) == MAX_AGENTS
        assert DEFAULT in models._agents
        assert ModelKey("openai-chat:busy") not in models._agents
        assert client_of(idle).is_closed()
        assert not client_of(busy).is_closed()
        answer = await busy.run("Hello")
        assert answer.output == "Hi there!"
    assert client_of(busy).is_closed()
    assert not client_of(default).is_closed()
    await models.aclose()
    assert client_of(default).is_closed()


async def test_runs_that_begin_at_the_same_time_leave_one_agent(models: Models) -> None:
    wish = config(model="openai-chat:a")

    async def use() -> Any:
        async with models.agent(wish) as agent:
            await agent.run("Hello")
            return agent

    agents = await asyncio.gather(*(use() for _ in range(8)))
    [kept] = {id(agent): agent for agent in agents if not client_of(agent).is_closed()}.values()
    assert models._agents[ModelKey("openai-chat:a")] is kept
    await models.aclose()
    assert client_of(kept).is_closed()


async def test_a_model_that_cannot_be_made_says_why_without_its_key(models: Models) -> None:
    wish = config(model="deepseek:a", api_key="sk-secret", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(RunFailed) as failed:
        async with models.agent(wish):
            pass
    assert failed.value.reason == "ModelNotFoundError"
    assert failed.value.cause == (
        "the model of the composition cannot be used (the provider 'deepseek' takes no 'base_url')"
    )


def test_the_configured_model_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"needs a package: install agent-gateway\[anthropic\]"):
        Models("anthropic:claude-haiku-4-5", 0)


def test_the_configured_model_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Models("openai:gpt-5-mini", 0)
