"""Structured output: the answer of a turn is one JSON text that fits the schema of the app."""

import json
from typing import Any

import pytest

from tests.support.chat import Chat, refused
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import Step, answer, call
from tests.support.gateway_server import wait_until
from tests.support.json_type import Json
from tests.support.model_apps import ChatWith

SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
BERLIN: Json = {"city": "Berlin", "people": 3_645_000}
WRONG: Json = {"city": "Berlin", "people": "many"}
KINDS = ["openai-chat", "openai-responses"]
MODES = ["tool", "native", "prompted"]


def given(mode: str, value: object) -> Step:
    """The answer of a model that was asked in this mode."""
    match mode:
        case "tool":
            return answer("Here it is: ", call("final_output", value, fragments=3))
        case "prompted":
            return answer("```json\n", json.dumps(value), "\n```")
        case _:
            return answer(*json.dumps(value, indent=1).splitlines(keepends=True))


def talks(chat_with: ChatWith, model: str, mode: str, kind: str = "openai-chat", **more: Any) -> Chat:
    output = {"json_schema": SCHEMA, "mode": mode, **more.pop("output", {})}
    # A mode in which clients see each call of a tool.
    return chat_with(app={"mode": "agent-chat"}, llm={"model": f"{kind}:{model}"}, output=output, **more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_answer_is_one_json_text_in_streams_and_rows(
    provider: ModelServer, chat_with: ChatWith, model: str, kind: str, mode: str
) -> None:
    provider.script(model, given(mode, BERLIN))
    chat = talks(chat_with, model, mode, kind, output={"name": "City", "description": "A city"})
    heard = chat.streaming("Berlin?")
    assert json.loads(heard.answer) == BERLIN
    assert heard.last["event"] == "message_end"
    assert "agent_thought" not in heard.kinds
    assert chat.resumed(heard.task_id).answer == heard.answer
    assert chat.message(heard.conversation_id)["answer"] == heard.answer
    [request] = provider.of(model)
    told = json.dumps(request.body)
    assert [words in told for words in ("A city", "people", "minimum")] == [True] * 3
    assert ("final_output" in request.tools) == (mode == "tool")


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_does_not_fit_the_schema_is_told_why_and_asked_again(
    provider: ModelServer, chat_with: ChatWith, model: str, mode: str
) -> None:
    provider.script(model, given(mode, WRONG), given(mode, BERLIN))
    heard = talks(chat_with, model, mode).streaming("Berlin?")
    assert json.loads(heard.answer) == BERLIN
    assert heard.last["metadata"]["usage"]["total_tokens"] == 28
    again = provider.of(model)[1]
    assert "people: 'many' is not of type 'integer'" in json.dumps(again.body, ensure_ascii=False)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_never_fits_the_schema_fails_the_turn_after_its_retries(
    provider: ModelServer, chat_with: ChatWith, model: str, mode: str
) -> None:
    provider.script(model, *[given(mode, WRONG)] * 2)
    chat = talks(chat_with, model, mode, output={"max_retries": 1})
    refused(chat.post("Berlin?", response_mode="blocking"), 502, "output_invalid")
    assert len(provider.of(model)) == 2
    message = chat.message(chat.conversations()["data"][0]["id"])
    assert (message["status"], message["answer"]) == ("error", "")
    assert message["metadata"]["usage"]["total_tokens"] == 28


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_that_is_no_json_is_asked_for_again(
    provider: ModelServer, chat_with: ChatWith, model: str, mode: str
) -> None:
    provider.script(model, answer("I do not know that."), given(mode, BERLIN))
    assert json.loads(talks(chat_with, model, mode).streaming("Berlin?").answer) == BERLIN


@pytest.mark.parametrize("mode", MODES)
def test_the_next_turn_knows_the_answer_before(
    provider: ModelServer, chat_with: ChatWith, model: str, mode: str
) -> None:
    provider.script(model, given(mode, BERLIN), given(mode, {"city": "Bonn", "people": 0}))
    chat = talks(chat_with, model, mode)
    first = chat.blocking("Berlin?")
    second = chat.blocking("And Bonn?", conversation_id=first["conversation_id"])
    assert json.loads(second["answer"]) == {"city": "Bonn", "people": 0}
    messages = provider.of(model)[1].messages
    assert "3645000" in json.dumps(messages)
    calls = [one["id"] for message in messages for one in message.get("tool_calls") or ()]
    assert calls == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert len(calls) == (mode == "tool")


@pytest.mark.parametrize("mode", MODES)
def test_a_model_with_a_schema_may_ask_a_human_first(
    provider: ModelServer, chat_with: ChatWith, model: str, mode: str
) -> None:
    question = {
        "title": "Which",
        "question": "Which Berlin?",
        "actions": [{"id": "de", "label": "Germany"}, {"id": "us", "label": "Ohio"}],
    }
    provider.script(model, answer("One moment. ", call("ask_human", question)), given(mode, BERLIN))
    chat = talks(chat_with, model, mode, ask_human={})
    asked = chat.streaming("Berlin?")
    assert "human_input_required" in asked.kinds
    assert "Which Berlin?" in asked.answer
    done = chat.blocking("Germany", conversation_id=asked.conversation_id)
    assert json.loads(done["answer"]) == BERLIN


def test_a_name_and_suggested_questions_may_come_from_structured_output(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    def composition(suffix: str, key: str, schema: Json) -> Json:
        output = {
            "json_schema": {"type": "object", "properties": {key: schema}, "required": [key]},
        }
        layers = [
            {"name": "prompt", "config": {"user": "${query}"}},
            {"name": "llm", "config": {"model": f"openai-chat:{model}-{suffix}"}},
            {"name": "output", "config": output},
        ]
        return {"composition": {"layers": layers}}

    text = {"type": "string"}
    chat = chat_with(
        app={
            "naming": composition("name", "title", text),
            "suggested_questions_after_answer": {
                "enabled": True,
                **composition("next", "questions", {"type": "array", "items": text}),
            },
        },
        llm={"model": f"openai-chat:{model}"},
    )
    title = answer(call("final_output", {"title": "About Berlin"}))
    provider.respond(f"{model}-name", lambda _: title)
    provider.script(f"{model}-next", answer(call("final_output", {"questions": ["And Bonn?", "And Ulm?"]})))
    first = chat.blocking("Berlin?")
    wait_until(lambda: chat.conversations()["data"][0]["name"] == "About Berlin")
    path = f"/messages/{first['message_id']}/suggested"
    assert chat.client.get(path, params={"user": chat.user}).json()["data"] == ["And Bonn?", "And Ulm?"]


@pytest.mark.parametrize("mode", MODES)
def test_a_model_with_a_schema_may_use_tools_first(
    provider: ModelServer, chat_with: ChatWith, model: str, mode: str
) -> None:
    provider.script(model, answer("Let me see. ", call("count", {"to": 3})), given(mode, BERLIN))
    chat = talks(chat_with, model, mode, tools={"functions": ["tests.support.tool_functions:count"]})
    heard = chat.streaming("Berlin?")
    assert json.loads(heard.answer) == BERLIN
    steps = [event for event in heard.events if event["event"] == "agent_thought"]
    assert provider.of(model)[1].results == ["1 2 3"]
    assert {step["tool"] for step in steps} == {"count"}
