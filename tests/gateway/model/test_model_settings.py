"""Each setting of a model layer reaches the provider, under the provider's own name."""

from typing import Any

import pytest

from agent_gateway.backend.embedded.agent.models import _log_ignored
from agent_gateway.errors import FAILURES
from tests.support.chat import refused
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import answer, call, refuse
from tests.support.fakes.script import Gate
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.log_lines import TURNS, kept_lines
from tests.support.model_apps import ChatWith

MODELS = "agent_gateway.backend.embedded.agent.models"
Body = dict[str, Any]
SETTINGS: list[tuple[str, object, tuple[Body, Body]]] = [
    ("temperature", 0.25, ({"temperature": 0.25}, {"temperature": 0.25})),
    ("top_p", 0.5, ({"top_p": 0.5}, {"top_p": 0.5})),
    ("max_tokens", 77, ({"max_completion_tokens": 77}, {"max_output_tokens": 77})),
    ("seed", 7, ({"seed": 7}, {})),
    ("stop_sequences", ["END"], ({"stop": ["END"]}, {})),
    ("presence_penalty", 0.5, ({"presence_penalty": 0.5}, {})),
    ("frequency_penalty", -0.5, ({"frequency_penalty": -0.5}, {})),
    ("reasoning_effort", "low", ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}})),
    ("reasoning_effort", "none", ({"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}})),
]
"""A key and its value, and what arrives as a chat completion and as a response."""


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize(("key", "value", "sent"), SETTINGS)
def test_a_setting_arrives_under_the_name_of_the_provider(
    provider: ModelServer,
    chat_with: ChatWith,
    model: str,
    kind: str,
    key: str,
    value: object,
    sent: tuple[Body, Body],
) -> None:
    # Only the names of reasoning models take an effort, and they take no sampling settings.
    name = f"gpt-5.1-{model}" if key == "reasoning_effort" else model
    heard = chat_with(llm={"model": f"{kind}:{name}", key: value}).streaming()
    assert heard.answer == "Hi there!"
    [request] = provider.of(name)
    expected = sent[kind == "openai-responses"]
    assert {name: request.body.get(name) for name in expected} == expected
    if not expected:
        assert value not in request.body.values()


def test_a_setting_that_a_model_ignores_is_logged_once(chat_with: ChatWith, model: str) -> None:
    chat = chat_with(llm={"model": f"openai-responses:{model}", "stop_sequences": ["END"], "seed": 1})
    _log_ignored.cache_clear()
    with kept_lines(MODELS) as lines:
        chat.blocking()
        chat.blocking()
    told = sorted(line["message"] for line in lines)
    kind = "models of the kind OpenAIResponsesModel ignore"
    assert told == [f"{kind} 'seed' of their layer", f"{kind} 'stop_sequences' of their layer"]


def test_parallel_tool_calls_arrive_with_tools(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    for kind in ("openai-chat", "openai-responses"):
        chat_with(llm={"model": f"{kind}:{model}", "parallel_tool_calls": False}, ask_human={}).streaming()
    assert [request.body["parallel_tool_calls"] for request in provider.of(model)] == [False, False]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_busy_provider_is_asked_again_as_often_as_the_app_says(
    provider: ModelServer, chat_with: ChatWith, model: str, retries: int
) -> None:
    busy = refuse(503, headers={"retry-after-ms": "1"})
    provider.script(model, *[busy] * (retries + 1))
    chat = chat_with(llm={"model": f"openai-chat:{model}", "max_retries": retries})
    refused(chat.post(response_mode="blocking"), 503, "provider_unavailable")
    assert len(provider.of(model)) == retries + 1


@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize(
    ("key", "said"),
    [("request_timeout_seconds", "request_timeout"), ("first_token_timeout_seconds", "first_event_timeout")],
)
def test_a_provider_that_says_nothing_for_too_long_fails_the_turn(
    server: GatewayServer,
    provider: ModelServer,
    chat_with: ChatWith,
    model: str,
    kind: str,
    key: str,
    said: str,
) -> None:
    provider.script(model, answer("late", held=Gate()))
    chat = chat_with(llm={"model": f"{kind}:{model}", key: 0.2, "max_retries": 0})
    with kept_lines(TURNS) as lines:
        refused(chat.post(response_mode="blocking"), 504, "provider_timeout")
        wait_until(lambda: lines)
    assert lines[0]["cause"] == f"InvokeTimeoutError (the model provider took longer than 0.2 s ({said}))"
    wait_until(lambda: provider.of(model)[0].abandoned)


def test_a_response_that_takes_too_long_as_a_whole_keeps_what_was_said(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.script(model, answer("Once ", Gate()))
    llm = {"model": f"openai-chat:{model}", "request_timeout_seconds": 0.5}
    heard = chat_with(llm=llm).streaming()
    assert (heard.last["event"], heard.last["code"], heard.answer) == ("error", "provider_timeout", "Once ")
    assert heard.last["message"] == FAILURES["provider_timeout"]


def test_a_pause_after_the_first_token_is_no_timeout_of_the_first_token(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    gate = Gate()
    provider.script(model, answer("Once ", gate, "more."))
    llm = {"model": f"openai-chat:{model}", "first_token_timeout_seconds": 0.3}
    with chat_with(llm=llm).open() as stream:
        stream.until("Once ")
        gate.open()
        assert stream.rest().answer == "Once more."


def test_a_model_that_always_calls_tools_stops_at_the_limit(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.respond(model, lambda request: answer(call("count", {"to": len(request.results) + 1})))
    chat = chat_with(
        llm={"model": f"openai-chat:{model}", "max_requests": 3},
        tools={"functions": ["tests.support.tool_functions:count"]},
    )
    refused(chat.post(response_mode="blocking"), 400, "agent_run_limit_exceeded")
    assert [request.results for request in provider.of(model)] == [[], ["1"], ["1", "1 2"]]
    usage = chat.message(chat.conversations()["data"][0]["id"])["metadata"]["usage"]
    assert usage["total_tokens"] == 3 * 14


def test_a_changed_system_prompt_applies_to_the_next_turn_and_is_sent_once(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    form = [{"text-input": {"label": "Tone", "variable": "tone"}}]
    chat = chat_with(
        app={"user_input_form": form},
        prompt={"prefix": ["You help.", "Be ${inputs.tone}."]},
        llm={"model": f"openai-chat:{model}"},
    )
    first = chat.blocking("One", inputs={"tone": "kind"})
    for tone in ("short", "funny"):
        chat.blocking("More", inputs={"tone": tone}, conversation_id=first["conversation_id"])
    told = [request.instructions for request in provider.of(model)]
    assert told == ["You help.\n\nBe kind.", "You help.\n\nBe short.", "You help.\n\nBe funny."]


def test_an_app_has_a_key_and_an_address_of_its_own(
    provider: ModelServer, chat_with: ChatWith, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "not-this-one")
    llm = {"model": f"openai-chat:{model}", "api_key": "sk-of-the-app", "base_url": provider.base_url}
    assert chat_with(llm=llm).blocking()["answer"] == "Hi there!"
    [request] = provider.of(model)
    assert request.headers["authorization"] == "Bearer sk-of-the-app"


def test_a_user_who_chooses_the_provider_is_told_that_it_takes_no_address(chat_with: ChatWith) -> None:
    form = [{"text-input": {"label": "Model", "variable": "model"}}]
    llm = {"model": "${inputs.model}", "api_key": "k", "base_url": "http://127.0.0.1:1/v1"}
    chat = chat_with(app={"user_input_form": form}, llm=llm)
    with kept_lines(TURNS) as lines:
        wrong = chat.post(inputs={"model": "deepseek:x"}, response_mode="blocking")
        refused(wrong, 400, "model_currently_not_support")
        wait_until(lambda: lines)
    assert lines[0]["cause"].endswith("(the provider 'deepseek' takes no 'base_url'))")
