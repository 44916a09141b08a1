"""What the embedded agent makes of its provider: parallel tools, thoughts in tags, what is tried again."""

import json
import os
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelServerError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
)
from pydantic_ai.models import infer_model

from agent_gateway.backend.embedded import EmbeddedBackend
from agent_gateway.backend.embedded.agent.builtin import EmbeddedAgents
from agent_gateway.backend.embedded.agent.models import ModelKey
from agent_gateway.backend.embedded.agent.retries import FIRST_PAUSE_SECONDS, pause_before_retry
from agent_gateway.backend.embedded.agent.thoughts import CLOSING, OPENING, TagSplitter
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import Refusal, answer, call, refuse
from tests.support.run_log import open_log
from tests.support.run_reader import events_of

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ModelServer]:
    async with ModelServer(KEY) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield provider


@pytest.fixture
async def backend(provider: ModelServer) -> AsyncGenerator[EmbeddedBackend]:
    assert os.environ["OPENAI_BASE_URL"] == provider.base_url
    async with open_log() as log:
        backend = EmbeddedBackend("openai-chat:m", log, pace=0)
        yield backend
        await backend.aclose()


async def run(backend: EmbeddedBackend, model: str) -> Fold:
    layers = [
        Layer("user_prompt", "plain.prompt", config={"user": "Hello"}),
        Layer("history", "pydantic_ai.history"),
        Layer("llm", "vendor.plugin.llm", config={"model": model}),
    ]
    fold = Fold()
    fold.feed(await events_of(backend, await backend.create_run(CreateRunRequest(Composition(1, layers)))))
    return fold


# What providers say when a conversation is too long

TOO_LONG = [
    refuse(400, "This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
    refuse(400, "This model's maximum context length is 8192 tokens. You requested 9000 tokens."),
    refuse(400, "Please reduce the length of the messages or completion.", kind="invalid_request_error"),
    refuse(400, "the request exceeds the available context size", kind="exceed_context_size_error"),
    refuse(400, "prompt is too long: 210000 tokens > 200000 maximum", kind="invalid_request_error"),
    refuse(400, "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."),
    refuse(400, "Input is too long for requested model."),
    refuse(400, "Prompt has 9000 tokens, too large for model with 8192 maximum context length", code="3051"),
    refuse(400, "Your input exceeds the context window of this model."),
    refuse(413, "too many tokens: the prompt has 9000"),
    refuse(500, "the input length exceeds the context length"),
]


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize("refusal", TOO_LONG, ids=range(len(TOO_LONG)))
async def test_a_conversation_that_is_too_long_is_known_by_the_words_of_many_providers(
    provider: ModelServer, backend: EmbeddedBackend, kind: str, refusal: Refusal
) -> None:
    provider.script("long", refusal)
    fold = await run(backend, f"{kind}:long")
    assert fold.run_end is not None
    assert fold.run_end.failure is not None
    assert (fold.run_end.failure.code, fold.run_end.failure.cause.kind) == (
        "context_length_exceeded",
        "ContextLengthExceededError",
    )


# Parallel tools


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
async def test_parallel_tools_each_have_their_step_whatever_becomes_of_them(
    provider: ModelServer, backend: EmbeddedBackend, kind: str
) -> None:
    """One works, one fails, one does not exist, one gets wrong arguments; their fragments come in turns."""

    def add(a: int, b: int) -> int:
        return a + b

    def fail() -> str:
        raise ModelRetry("not today")

    name = f"{kind}:parallel"
    assert isinstance(backend._agents, EmbeddedAgents)
    backend._agents._models._agents[ModelKey(name)] = Agent[object, str](infer_model(name), tools=[add, fail])
    calls = [
        call("add", {"a": 1, "b": 22}, fragments=5),
        call("fail", fragments=2),
        call("unknown", {"x": "y"}, fragments=3),
        call("add", {"a": "no"}, fragments=4),
    ]
    provider.script("parallel", answer("Let me see. ", *calls), "It is 23.")
    fold = await run(backend, name)
    assert fold.run_end is not None
    assert fold.run_end.type == "run_succeeded"
    assert fold.answer == "Let me see. It is 23."
    assert [(step.tool, json.loads(step.tool_input)) for step in fold.steps] == [
        ("add", {"a": 1, "b": 22}),
        ("fail", {}),
        ("unknown", {"x": "y"}),
        ("add", {"a": "no"}),
    ]
    observed = [step.observation for step in fold.steps]
    assert observed[0] == "23"
    assert "not today" in observed[1]
    assert "Unknown tool" in observed[2]
    assert "int_parsing" in observed[3]
    first, second = provider.requests
    assert first.tools == ["add", "fail"]
    assert len(second.results) == len(calls)


# Thoughts in tags


def split(deltas: list[str]) -> tuple[list[str], str]:
    """The pieces, with neighbours between the tags joined, and the answer."""
    splitter = TagSplitter()
    pieces = [piece for delta in deltas for piece in splitter.feed(delta)] + [splitter.rest()]
    joined = [""]
    for piece in pieces:
        opens, closes = joined == [""], OPENING in joined and CLOSING not in joined
        if (opens and piece == OPENING) or (closes and piece == CLOSING):
            joined += [piece, ""]
        else:
            joined[-1] += piece
    return [piece for piece in joined[:-1] if piece], joined[-1]


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    """The text, cut anywhere."""
    places = st.lists(st.integers(0, len(text)), max_size=8).map(sorted)
    return places.map(lambda at: [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)])


TEXTS: dict[str, tuple[list[str], str]] = {
    "<think>Let me see.</think>Hi": ([OPENING, "Let me see.", CLOSING], "Hi"),
    "\n<think>\nLet < me</ see.\n</think>\n\nHi </think>": (
        [OPENING, "\nLet < me</ see.\n", CLOSING],
        "Hi </think>",
    ),
    "<think></think>Hi": ([OPENING, CLOSING], "Hi"),
    "<think>never ends </thin": ([OPENING], "never ends </thin"),
    "Hi <think>there</think>": ([], "Hi <think>there</think>"),
    "  <thinking>": ([], "  <thinking>"),
    " <thin": ([], " <thin"),
    "": ([], ""),
}


@pytest.mark.parametrize("text", TEXTS)
@given(data=st.data())
def test_tags_become_pieces_however_the_text_is_cut(text: str, data: st.DataObject) -> None:
    assert split(data.draw(cuts(text))) == TEXTS[text]


# What is tried again


def http(kind: Any, status: int, **headers: str) -> ModelHTTPError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return ModelHTTPError.for_category(kind, status_code=status, model_name="m", headers=names)


LIMITED = http(ModelRateLimitError, 429)


@pytest.mark.parametrize(
    ("error", "tries", "pause"),
    [
        (http(ModelRateLimitError, 429, retry_after="10"), 1, 10.0),
        (http(ModelRateLimitError, 429, retry_after="10"), 2, 10.0),
        (http(ModelRateLimitError, 429, retry_after="10"), 3, None),
        (http(ModelRateLimitError, 429, retry_after="11"), 1, None),
        (http(ModelRateLimitError, 429, retry_after="0"), 1, 0.0),
        (http(ModelRateLimitError, 429, retry_after_ms="250"), 1, 0.25),
        (http(ModelRateLimitError, 429, retry_after="1", x_should_retry="false"), 1, None),
        (http(ModelServerError, 500, retry_after="3"), 1, 3.0),
        (http(ModelQuotaExceededError, 429, retry_after="1"), 1, None),
        (http(ModelAuthenticationError, 401, retry_after="1"), 1, None),
        (http(ModelAuthenticationError, 401, retry_after="1", x_should_retry="true"), 1, 1.0),
        (ModelTimeoutError("m", "timed out"), 1, None),
        (ModelAPIError("m", "not JSON"), 1, None),
        (UnexpectedModelBehavior("nothing"), 1, None),
        (RuntimeError(), 1, None),
    ],
)
def test_how_long_to_wait_before_a_request_is_made_again(
    error: Exception, tries: int, pause: float | None
) -> None:
    assert pause_before_retry(error, tries) == pause


@pytest.mark.parametrize("error", [LIMITED, http(ModelServerError, 502), ModelConnectionError("m", "reset")])
def test_without_a_word_of_the_provider_the_pauses_grow_and_are_random(error: Exception) -> None:
    for tries, longest in ((1, FIRST_PAUSE_SECONDS), (2, 2 * FIRST_PAUSE_SECONDS)):
        pauses = [pause_before_retry(error, tries) for _ in range(50)]
        assert all(pause is not None and longest / 2 <= pause <= longest for pause in pauses)
        assert len(set(pauses)) > 1
    assert pause_before_retry(error, 3) is None
