"""A long conversation stays within the limits of its app, and never breaks."""

import json
from typing import Any

import pytest

from agent_gateway.backend.embedded.agent.history import ASKED
from tests.support.chat import Chat
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import ModelRequest, answer, call, refuse
from tests.support.gateway_server import GatewayServer
from tests.support.log_lines import kept_lines
from tests.support.model_apps import ChatWith
from tests.support.rows import newest_turn, rows_of

HISTORY = "agent_gateway.backend.embedded.agent.history"


def said(request: ModelRequest) -> list[str]:
    """What the users and the model said in a request, oldest first."""
    return [
        str(message["content"])
        for message in request.messages
        if message["role"] in ("user", "assistant") and message.get("content")
    ]


def talk(chat: Chat, *queries: str) -> str:
    conversation = chat.blocking(queries[0])["conversation_id"]
    for query in queries[1:]:
        chat.blocking(query, conversation_id=conversation)
    return str(conversation)


def stored(server: GatewayServer, conversation: str) -> list[Any]:
    """The messages in the snapshot of a conversation."""
    database = server.settings.resolved_database_url()
    snapshot = rows_of(database, newest_turn(database, conversation)).snapshot
    assert snapshot is not None
    layers = json.loads(snapshot.data)["layers"]
    [messages] = [layer["runtime_state"]["messages"] for layer in layers if layer["name"] == "history"]
    assert isinstance(messages, list)
    return messages


def test_old_turns_are_forgotten_and_the_stored_history_does_not_grow(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.script(model, *[f"Answer {number}." for number in range(6)])
    chat = chat_with(llm={"model": f"openai-chat:{model}"}, history={"max_messages": 4})
    conversation = talk(chat, *[f"Question {number}?" for number in range(6)])
    assert [len(said(request)) for request in provider.of(model)] == [1, 3, 5, 5, 5, 5]
    assert said(provider.of(model)[-1]) == [
        "Question 3?",
        "Answer 3.",
        "Question 4?",
        "Answer 4.",
        "Question 5?",
    ]
    assert len(stored(server, conversation)) == 6


def test_the_newest_turn_stays_when_it_alone_is_over_the_limit(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    long = "word " * 500
    provider.script(model, "One.", "Two.", "Three.")
    chat = chat_with(llm={"model": f"openai-chat:{model}"}, history={"max_tokens": 20})
    talk(chat, "First?", long, "Third?")
    assert said(provider.of(model)[-1]) == [long, "Two.", "Third?"]


def test_tokens_count_about_four_bytes_each(provider: ModelServer, chat_with: ChatWith, model: str) -> None:
    provider.script(model, *["a" * 40] * 4)
    chat = chat_with(llm={"model": f"openai-chat:{model}"}, history={"max_tokens": 40})
    talk(chat, *["q" * 40] * 4)
    assert [len(said(request)) for request in provider.of(model)] == [1, 3, 5, 5]


def test_a_tool_call_is_never_parted_from_its_result(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    """One turn with tools has four messages, and the limit would cut it in the middle."""
    steps = [step for number in range(3) for step in (answer(call("nowhere")), f"Done {number}.")]
    provider.script(model, *steps)
    chat = chat_with(llm={"model": f"openai-chat:{model}"}, history={"max_messages": 5})
    talk(chat, "One?", "Two?", "Three?")
    messages = provider.of(model)[-1].messages
    calls = [one["id"] for message in messages for one in message.get("tool_calls") or ()]
    assert calls == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert said(provider.of(model)[-1])[0] == "Two?"


def test_an_open_question_is_never_forgotten(provider: ModelServer, chat_with: ChatWith, model: str) -> None:
    question = {"title": "T", "question": "Sure?", "actions": [{"id": "y", "label": "Yes"}]}
    provider.script(model, "One.", answer(call("ask_human", question)), "Done.", "Later.")
    chat = chat_with(
        llm={"model": f"openai-chat:{model}"}, history={"max_messages": 1, "max_tokens": 1}, ask_human={}
    )
    conversation = talk(chat, "First?", "Second?", "Yes", "Third?")
    answered, last = provider.of(model)[2:]
    assert [message["role"] for message in answered.messages[1:]] == ["user", "assistant", "tool"]
    assert said(last) == ["Second?", "Done.", "Third?"]
    assert [one["answer"] for one in chat.messages(conversation)][-1] == "Later."


def test_what_is_forgotten_is_summed_up_now_and_then(
    server: GatewayServer, provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.script(model, *[f"Answer {number}." for number in range(9)])
    small = f"{model}-small"
    provider.script(
        small, answer("Sum A.", usage=(500, 20)), answer("Sum B.", usage=(600, 20)), answer("Sum C.")
    )
    chat = chat_with(
        llm={"model": f"openai-chat:{model}"},
        history={"max_messages": 8, "summary_model": f"openai-chat:{small}"},
    )
    heard = [chat.streaming("Question 0?")]
    conversation = heard[0].conversation_id
    heard += [chat.streaming(f"Question {n}?", conversation_id=conversation) for n in range(1, 9)]
    # Five turns are over the limit; then two of them stay, and the summary.
    assert [one.last["metadata"]["usage"]["prompt_tokens"] for one in heard] == [11] * 5 + [511, 11, 611, 11]
    assert all("Sum" not in one.answer for one in heard)
    sixth = provider.of(model)[5]
    assert said(sixth) == [
        ASKED,
        "Sum A.",
        "Question 3?",
        "Answer 3.",
        "Question 4?",
        "Answer 4.",
        "Question 5?",
    ]
    first, second = provider.of(small)
    assert "User: Question 0?\n\nAssistant: Answer 0.\n\n" in said(first)[0]
    assert "Question 3?" not in said(first)[0]
    assert "Assistant: Sum A." in said(second)[0], "a summary contains the one before"
    assert "Be kind." not in first.instructions
    assert not first.body.get("tools")
    assert len(stored(server, conversation)) <= 10


def test_a_summary_that_fails_costs_only_the_summary(
    provider: ModelServer, chat_with: ChatWith, model: str
) -> None:
    provider.script(model, "One.", "Two.", "Three.")
    provider.script(f"{model}-small", refuse(400, "Two secret words"))
    chat = chat_with(
        llm={"model": f"openai-chat:{model}"},
        history={"max_messages": 2, "summary_model": f"openai-chat:{model}-small"},
    )
    with kept_lines(HISTORY) as lines:
        talk(chat, "First?", "Second?", "Third?")
    assert said(provider.of(model)[-1]) == ["Second?", "Two.", "Third?"]
    [line] = lines
    assert line["message"].startswith("a conversation was cut without a summary: ")
    assert "secret" not in str(line)
    assert "First" not in str(line)


def test_a_summary_has_a_key_and_an_address_of_its_own(
    provider: ModelServer, chat_with: ChatWith, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    here = {"base_url": provider.base_url, "api_key": "sk-small"}
    small = {"model": f"openai-chat:{model}-small", **here}
    chat = chat_with(
        llm={"model": f"openai-chat:{model}", **here}, history={"max_messages": 1, "summary_model": small}
    )
    talk(chat, "First?", "Second?", "Third?")
    [request] = provider.of(f"{model}-small")
    assert request.headers["authorization"] == "Bearer sk-small"
