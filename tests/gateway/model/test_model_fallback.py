"""When a model fails before it has said anything, the next one of its app answers."""

import socket

import pytest

from tests.support.chat import refused
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import Cut, Step, StreamError, answer, call, refuse
from tests.support.fakes.script import Gate
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.log_lines import TURNS, kept_lines
from tests.support.model_apps import PROVIDER_KEY, ChatWith

KINDS = ["openai-chat", "openai-responses"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "step",
    [
        refuse(401),
        refuse(404, code="model_not_found"),
        refuse(429),
        refuse(500),
        answer(StreamError("overloaded")),
        answer(Cut()),
    ],
    ids=["401", "404", "429", "500", "an error in the stream", "a cut before the first token"],
)
def test_the_second_model_answers_when_the_first_fails_before_it_said_anything(
    provider: ModelServer, chat_with: ChatWith, model: str, kind: str, step: Step
) -> None:
    provider.script(f"{model}-a", step)
    provider.script(f"{model}-b", answer("Second.", usage=(100, 7)))
    llm = {"model": f"{kind}:{model}-a", "fallback_models": [f"{kind}:{model}-b"], "max_retries": 0}
    heard = chat_with(llm=llm).streaming()
    assert (heard.last["event"], heard.answer) == ("message_end", "Second.")
    used = heard.last["metadata"]["usage"]
    assert (used["prompt_tokens"], used["completion_tokens"]) == (100, 7)
    assert len(provider.of(f"{model}-a")) == 1


def test_the_second_model_answers_when_the_first_cannot_be_reached(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        llm = {"model": "openai-chat:m", "base_url": nowhere, "max_retries": 0}
        second = {"model": f"openai-chat:{model}", "base_url": provider.base_url, "api_key": "sk-second"}
        assert chat_with(llm={**llm, "fallback_models": [second]}).blocking()["answer"] == "Hi there!"
    [request] = provider.of(model)
    assert request.headers["authorization"] == "Bearer sk-second"


def test_the_second_model_answers_when_the_first_says_nothing_for_too_long(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.script(f"{model}-a", answer("late", held=Gate()))
    llm = {
        "model": f"openai-chat:{model}-a",
        "fallback_models": [f"openai-chat:{model}-b"],
        "first_token_timeout_seconds": 0.3,
    }
    assert chat_with(llm=llm).streaming().answer == "Hi there!"
    wait_until(lambda: provider.of(f"{model}-a")[0].abandoned)


def test_no_other_model_continues_a_text_that_has_begun(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.script(f"{model}-a", answer("Half ", Cut()))
    llm = {
        "model": f"openai-chat:{model}-a",
        "fallback_models": [f"openai-chat:{model}-b"],
        "max_retries": 0,
    }
    heard = chat_with(llm=llm).streaming()
    assert (heard.last["event"], heard.answer) == ("error", "Half ")
    assert provider.of(f"{model}-b") == []


def test_when_all_models_fail_the_last_failure_counts_and_the_operator_is_told_of_each(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    llm = {
        "model": f"openai-chat:{model}-503",
        "fallback_models": [f"openai-chat:{model}-401", f"openai-chat:{model}-429"],
    }
    with kept_lines(TURNS) as lines:
        refused(chat_with(llm=llm).post(response_mode="blocking"), 429, "rate_limit_error")
        wait_until(lambda: lines)
    cause = lines[0]["cause"]
    assert cause.startswith("InvokeRateLimitError 429 (all 3 models failed: ")
    assert [words in cause for words in ("answered 503", "answered 401", "answered 429")] == [True] * 3
    assert PROVIDER_KEY not in cause


def test_each_round_of_tools_begins_with_the_first_model(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    """A model that was away for one request is asked again for the next one."""
    provider.script(f"{model}-a", refuse(503), answer("First again."))
    provider.script(f"{model}-b", answer(call("unknown_tool")))
    llm = {
        "model": f"openai-chat:{model}-a",
        "fallback_models": [f"openai-chat:{model}-b"],
        "max_retries": 0,
    }
    assert chat_with(llm=llm).streaming().answer == "First again."


def test_an_answer_of_a_second_model_that_breaks_off_politely_is_incomplete(
    chat_with: ChatWith, model: str
) -> None:
    llm = {"model": f"openai-chat:{model}-503", "fallback_models": [f"openai-chat:{model}-end"]}
    heard = chat_with(llm=llm).streaming()
    assert (heard.last["event"], heard.last["code"]) == ("error", "answer_incomplete")


def test_all_models_are_asked_again_when_all_of_them_are_busy(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    busy = refuse(503, headers={"retry-after": "0"})
    provider.script(f"{model}-a", busy, busy)
    provider.script(f"{model}-b", busy, "Back again.")
    llm = {
        "model": f"openai-chat:{model}-a",
        "fallback_models": [f"openai-chat:{model}-b"],
        "max_retries": 1,
    }
    assert chat_with(llm=llm).streaming().answer == "Back again."
    order = [request.model[-1] for request in provider.requests if request.model.startswith(f"{model}-")]
    assert order == ["a", "b", "a", "b"]


def test_thoughts_in_the_text_of_a_second_model_are_no_part_of_the_answer(
    chat_with: ChatWith, model: str
) -> None:
    llm = {
        "model": f"openai-chat:{model}-429",
        "fallback_models": [f"openai-chat:{model}-thinks-tags"],
    }
    assert chat_with(llm=llm).streaming().answer == "Hi there!"
