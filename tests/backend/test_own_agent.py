"""Somebody's pydantic-ai `Agent` in the embedded backend: its output, its questions, its errors."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from agent_gateway.backend.embedded import EmbeddedBackend
from agent_gateway.backend.embedded.agent.own import OwnAgents
from agent_gateway.backend.fold.question import read_question
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer, OnExit
from agent_gateway.errors import ConfigError
from tests.support.json_type import Json
from tests.support.run_log import open_log
from tests.support.run_reader import events_of

pytestmark = pytest.mark.anyio

LIMIT = 30.0  # seconds until a test that waits for nothing gives up
SECRET = "sk-very-secret-0123456789"
Said = str | dict[int, DeltaToolCall]
"""What a model says in one round: words, or calls of tools."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Scripted:
    """A model that says one of these in each round; it keeps what it was sent."""

    def __init__(self, *rounds: Said) -> None:
        self.rounds = list(rounds)
        self.heard: list[str] = []
        self.instructions: list[str | None] = []
        self.model = FunctionModel(stream_function=self._stream, model_name="scripted")

    async def _stream(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Said]:
        self.heard.append(ModelMessagesTypeAdapter.dump_json(messages).decode())
        self.instructions.append(info.instructions)
        yield self.rounds.pop(0)


def call(tool: str, args: str = "{}", number: int = 1) -> dict[int, DeltaToolCall]:
    return {number: DeltaToolCall(tool, args, tool_call_id=f"call_{number}")}


@asynccontextmanager
async def backend_of(agent: Agent[Any, Any]) -> AsyncGenerator[EmbeddedBackend]:
    async with open_log() as log:
        backend = EmbeddedBackend("", log, agents=OwnAgents(agent, "my:agent"))
        try:
            async with asyncio.timeout(LIMIT):
                yield backend
        finally:
            await backend.aclose()


async def ask(
    backend: EmbeddedBackend,
    user: str = "Hello",
    snapshot: Json | None = None,
    answers: Json | None = None,
    *more: Layer,
) -> tuple[Fold, Json]:
    """A run: its fold, and the data of its terminal event with its type."""
    layers = [
        Layer("soul", "plain.prompt", config={"prefix": "Be kind."}),
        Layer("user_prompt", "plain.prompt", config={"user": user}),
        Layer("history", "pydantic_ai.history"),
        Layer("llm", "vendor.plugin.llm", config={"model": "unknown:model"}),
        *more,
    ]
    wish = CreateRunRequest(
        Composition(1, layers),
        session_snapshot=None if snapshot is None else msgspec.Raw(msgspec.json.encode(snapshot)),
        deferred_tool_results=None if answers is None else {"calls": answers, "metadata": {}},
    )
    events = await events_of(backend, await backend.create_run(wish))
    fold = Fold()
    fold.feed(events)
    return fold, json.loads(bytes(events[-1].data)) | {"type": events[-1].type}


async def test_it_runs_with_its_own_model_and_instructions_beside_those_of_the_app() -> None:
    script = Scripted("Hi.", "Ada.")
    async with backend_of(Agent(script.model, instructions="Be brief.")) as backend:
        first, end = await ask(backend, "My name is Ada.")
        second, _ = await ask(backend, "What is my name?", end["session_snapshot"])
    assert (first.answer, second.answer, end["output"]) == ("Hi.", "Ada.", "Hi.")
    assert all(given and "Be brief." in given and "Be kind." in given for given in script.instructions)
    assert "My name is Ada." in script.heard[1]


async def test_output_of_a_type_is_json() -> None:
    class City(BaseModel):
        name: str
        people: int

    script = Scripted(call("final_result", '{"name": "Lisbon", "people": 575000}'))
    async with backend_of(Agent(script.model, output_type=City)) as backend:
        fold, end = await ask(backend)
    assert (end["type"], end["output"]) == ("run_succeeded", {"name": "Lisbon", "people": 575000})
    assert (fold.answer, fold.steps) == ("", [])


async def test_a_tool_that_waits_for_a_human_is_a_question_with_its_metadata() -> None:
    script = Scripted(call("ask_size", '{"question": "How big?"}'), "Thanks.")
    agent = Agent(script.model, output_type=[str, DeferredToolRequests])

    @agent.tool_plain
    def ask_size(question: str) -> str:
        raise CallDeferred(metadata={"approval": {"by": "anybody"}})

    async with backend_of(agent) as backend:
        _, end = await ask(backend)
        asked = end["deferred_tool_call"]
        answered, _ = await ask(
            backend, "Well", end["session_snapshot"], {"call_1": {"values": {"size": "S"}}}
        )
    assert (asked["tool_name"], asked["tool_call_id"]) == ("ask_size", "call_1")
    question = read_question(asked)
    assert (question.text, question.definition.approval) == ("How big?", {"by": "anybody"})
    assert answered.answer == "Thanks."
    assert '{"values":{"size":"S"}}' in script.heard[1]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"status": "submitted", "action": {"id": "approve"}}, "deleted x"),
        ({"status": "submitted", "action": {"id": "reject"}}, "The user rejected this call."),
        (
            {"status": "submitted", "action": None, "message": "Why?"},
            "the user did not decide, but wrote: Why?",
        ),
        ({"status": "timeout", "action": None}, "Nobody decided about this call in time"),
        ("approve", "the user did not approve it"),
    ],
)
async def test_a_tool_that_needs_an_approval_runs_only_after_one(answer: Any, result: str) -> None:
    done: list[str] = []
    script = Scripted({**call("delete", '{"name": "x"}'), **call("delete", '{"name": "y"}', 2)}, "So be it.")
    agent = Agent(script.model, output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def delete(name: str) -> str:
        done.append(name)
        return f"deleted {name}"

    async with backend_of(agent) as backend:
        _, end = await ask(backend)
        question = read_question(end["deferred_tool_call"])
        assert done == []
        fold, _ = await ask(backend, "Well", end["session_snapshot"], {question.tool_call_id: answer})
    assert question.text.startswith("The agent wants to make these 2 calls")
    assert [action.id for action in question.definition.actions] == ["approve", "reject"]
    assert fold.answer == "So be it."
    assert done == (["x", "y"] if result.startswith("deleted") else [])
    assert result in script.heard[1]


async def test_with_the_layer_for_questions_it_gets_the_tool_that_asks() -> None:
    script = Scripted(call("ask_human", '{"title": "T", "question": "Q?", "actions": []}'), "Thanks.")
    layer = Layer("ask", "vendor.ask_human", config={})
    async with backend_of(Agent(script.model)) as backend:
        _, end = await ask(backend, "Hello", None, None, layer)
        fold, _ = await ask(
            backend, "Well", end["session_snapshot"], {"call_1": {"status": "submitted"}}, layer
        )
    assert end["deferred_tool_call"]["args"]["question"] == "Q?"
    assert fold.answer == "Thanks."


async def test_the_text_of_an_exception_in_a_tool_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(Scripted(call("look")).model)

    @agent.tool_plain
    def look() -> str:
        raise KeyError(SECRET)

    async with backend_of(agent) as backend:
        _, end = await ask(backend)
    assert (end["type"], end["error"]) == ("run_failed", "the agent failed (KeyError)")
    assert end["cause"].startswith("KeyError at tests/backend/test_own_agent.py:")
    assert SECRET not in caplog.text + json.dumps(end)


async def test_a_run_that_cleans_up_does_not_run_the_agent() -> None:
    script = Scripted()
    async with backend_of(Agent(script.model)) as backend:
        layers = [Layer("user_prompt", "plain.prompt", config={"user": "x"})]
        wish = CreateRunRequest(Composition(1, layers), on_exit=OnExit("delete"))
        events = await events_of(backend, await backend.create_run(wish))
    assert (events[-1].type, script.heard) == ("run_succeeded", [])


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (
            Agent("test", deps_type=int),
            "the agent needs deps of the type int, and here it gets none",
        ),
        (Agent(), "the agent has no model"),
        (
            Agent("nobody:x", defer_model_check=True),
            "its model 'nobody:x' cannot be used: Unknown model: nobody:x",
        ),
    ],
    ids=["deps", "no model", "unknown model"],
)
async def test_an_agent_that_could_never_run_is_refused(agent: Agent[Any, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        OwnAgents(agent, "my:agent")
    assert str(refused.value).startswith(f"--agent my:agent: {said}")


@pytest.mark.parametrize("deps_type", [object, type(None), int | None])
async def test_an_agent_that_takes_none_for_its_deps_is_served(deps_type: Any) -> None:
    OwnAgents(Agent("test", deps_type=deps_type), "my:agent")
