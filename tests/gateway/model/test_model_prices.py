"""Usage has the prices of the model that answered, also when a turn is stopped or fails."""

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from pydantic_ai.messages import ModelRequest, ModelResponse, PartStartEvent, TextPart
from pydantic_ai.usage import RequestUsage

from agent_gateway.backend.embedded.agent.prices import Meter
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import Cut, answer, call, refuse
from tests.support.fakes.script import Gate
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.model_apps import ChatWith

MODEL = "gpt-4o-mini"
"""0.15 US dollars for a million tokens of the request, 0.60 for a million of the answer."""
FREE = {
    "prompt_unit_price": "0",
    "prompt_price_unit": "0",
    "prompt_price": "0",
    "completion_unit_price": "0",
    "completion_price_unit": "0",
    "completion_price": "0",
    "total_price": "0",
}


@pytest.fixture
def charged(provider: ModelServer) -> Iterator[None]:
    """The price list of this release, in which OpenAI is at the address of the fake provider."""
    found = next(one for one in get_snapshot().providers if one.id == "openai")
    here = replace(found, api_pattern=re.escape(provider.base_url))
    set_custom_snapshot(DataSnapshot(providers=[here], from_auto_update=False))
    yield
    set_custom_snapshot(None)


def prices(usage: Json) -> Json:
    return {key: value for key, value in usage.items() if "price" in key}


@pytest.mark.usefixtures("charged")
@pytest.mark.parametrize("kind", ["openai-chat", "openai-responses"])
def test_a_turn_has_the_prices_of_the_list_everywhere(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, kind: str
) -> None:
    provider.respond(MODEL, lambda _: answer("Hi.", usage=(2000, 300)))
    chat = chat_with(llm={"model": f"{kind}:{MODEL}"})
    heard = chat.streaming()
    used = heard.last["metadata"]["usage"]
    assert prices(used) == {
        "prompt_unit_price": "0.00015",
        "prompt_price_unit": "0.001",
        "prompt_price": "0.0003",
        "completion_unit_price": "0.0006",
        "completion_price_unit": "0.001",
        "completion_price": "0.00018",
        "total_price": "0.00048",
    }
    assert used["currency"] == "USD"
    assert chat.message(heard.conversation_id)["metadata"]["usage"] == used


def test_a_server_of_ones_own_costs_nothing(provider: ModelServer, chat_with: ChatWith) -> None:
    provider.respond(MODEL, lambda _: answer("Hi.", usage=(2000, 300)))
    used = chat_with(llm={"model": f"openai-chat:{MODEL}"}).streaming().last["metadata"]["usage"]
    assert prices(used) == FREE
    assert used["total_tokens"] == 2300


@pytest.mark.usefixtures("charged")
def test_a_model_that_is_not_on_the_list_costs_nothing(chat_with: ChatWith, model: str) -> None:
    used = chat_with(llm={"model": f"openai-chat:{model}"}).streaming().last["metadata"]["usage"]
    assert prices(used) == FREE


@pytest.mark.usefixtures("charged")
def test_rounds_of_tools_add_up_and_each_has_the_price_of_its_model(
    provider: ModelServer, chat_with: ChatWith
) -> None:
    """The cheap model calls a tool; for the second request it is away, and the other one answers."""
    provider.script(MODEL, answer(call("nowhere"), usage=(1000, 100)), refuse(503))
    provider.script("gpt-4o", answer("Done.", usage=(1000, 100)))
    llm = {
        "model": f"openai-chat:{MODEL}",
        "fallback_models": ["openai-chat:gpt-4o"],
        "max_retries": 0,
    }
    used = chat_with(llm=llm).streaming().last["metadata"]["usage"]
    assert used["total_tokens"] == 2200
    # 0.15 and 0.60, then 2.50 and 10 US dollars for a million.
    assert Decimal(used["prompt_price"]) == Decimal("0.00015") + Decimal("0.0025")
    assert Decimal(used["completion_price"]) == Decimal("0.00006") + Decimal("0.001")
    assert used["prompt_unit_price"] == "0.001325", "an average"


@pytest.mark.usefixtures("charged")
def test_a_stopped_turn_counts_what_was_said_before(provider: ModelServer, chat_with: ChatWith) -> None:
    """The provider reports its tokens at the end only, so those of the cut answer are estimated."""
    provider.script(
        MODEL, answer(call("nowhere"), usage=(1000, 100)), answer("word " * 80, Gate(), usage=(9999, 9999))
    )
    chat = chat_with(llm={"model": f"openai-chat:{MODEL}"})
    with chat.open("Tell me a story.") as stream:
        stream.until("word " * 80)
        chat.stop(stream.task_id)
        heard = stream.rest()
    used = chat.message(heard.conversation_id)["metadata"]["usage"]
    assert used["completion_tokens"] == 100 + 100
    assert 1000 < used["prompt_tokens"] < 1100
    assert Decimal(used["completion_price"]) == 200 * Decimal("0.0000006")


@pytest.mark.usefixtures("charged")
def test_a_failed_turn_counts_what_the_provider_has_reported(
    provider: ModelServer, chat_with: ChatWith
) -> None:
    provider.script(MODEL, answer(call("nowhere"), usage=(1000, 100)), refuse(400))
    chat = chat_with(llm={"model": f"openai-chat:{MODEL}"})
    heard = chat.streaming()
    assert heard.last["event"] == "error"
    used = chat.message(heard.conversation_id)["metadata"]["usage"]
    assert (used["total_tokens"], used["total_price"]) == (1100, "0.00021")


@pytest.mark.usefixtures("charged")
def test_an_answer_that_the_provider_cuts_is_estimated(provider: ModelServer, chat_with: ChatWith) -> None:
    provider.script(MODEL, answer("word " * 80, Cut()))
    chat = chat_with(llm={"model": f"openai-chat:{MODEL}"})
    heard = chat.streaming("Tell me a story.")
    assert heard.last["event"] == "error"
    used = chat.message(heard.conversation_id)["metadata"]["usage"]
    assert used["completion_tokens"] == 100
    assert 0 < used["prompt_tokens"] < 20
    assert used["completion_price"] == "0.00006"


@pytest.mark.usefixtures("charged")
def test_an_incomplete_answer_is_counted(provider: ModelServer, chat_with: ChatWith) -> None:
    provider.script(MODEL, answer("Half", finish=None, usage=(1000, 100)))
    chat = chat_with(llm={"model": f"openai-chat:{MODEL}"})
    heard = chat.streaming()
    assert heard.last["code"] == "answer_incomplete"
    assert chat.message(heard.conversation_id)["metadata"]["usage"]["total_price"] == "0.00021"


def test_cached_tokens_make_the_unit_price_an_average() -> None:
    meter = Meter()
    usage = RequestUsage(input_tokens=1000, cache_read_tokens=500, output_tokens=10)
    meter.counts(_response(usage))
    used = meter.usage()
    # Half of them at 0.15, half at 0.075 US dollars for a million.
    assert (used.prompt_price, used.prompt_unit_price) == ("0.0001125", "0.0001125")


def test_prices_are_plain_decimals_also_when_they_are_tiny() -> None:
    meter = Meter()
    meter.counts(_response(RequestUsage(input_tokens=1, output_tokens=0)))
    used = meter.usage()
    assert (used.prompt_price, used.completion_price, used.completion_unit_price) == ("0.00000015", "0", "0")


def test_a_response_that_breaks_off_before_it_said_anything_is_not_counted() -> None:
    meter = Meter()
    meter.asks([ModelRequest.user_text_prompt("word " * 100)])
    meter.breaks_off(_response(RequestUsage()))
    assert meter.usage().total_tokens == 0
    meter.asks([ModelRequest.user_text_prompt("word " * 100)])
    meter.hears(PartStartEvent(index=0, part=TextPart("four")))
    meter.breaks_off(_response(RequestUsage()))
    assert (meter.usage().prompt_tokens, meter.usage().completion_tokens) == (125, 1)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1/",
        "https://api.anthropic.com",
        "https://generativelanguage.googleapis.com",
        "https://api.groq.com",
        "https://api.mistral.ai",
        "https://api.cohere.com",
        "https://api.deepseek.com",
        "https://bedrock-runtime.us-east-1.amazonaws.com",
        "https://openrouter.ai/api/v1",
        "https://x.openai.azure.com/",
    ],
)
def test_the_addresses_of_the_common_providers_are_on_the_list(url: str) -> None:
    assert get_snapshot().find_provider(None, None, url).models


def _response(usage: RequestUsage) -> ModelResponse:
    return ModelResponse(
        [TextPart("x")],
        usage=usage,
        model_name=MODEL,
        provider_name="openai",
        provider_url="https://api.openai.com/v1/",
    )
