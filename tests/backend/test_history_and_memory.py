"""What a summary reads of forgotten turns, and what an agent function remembers of odd snapshots."""

from typing import Any

import httpx2
import msgspec
import pytest
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import (
    BinaryContent,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from agent_gateway.backend.embedded.agent.history import MAX_PART, _lines
from agent_gateway.backend.embedded.function.memory import Memory, memory_of
from agent_gateway.backend.embedded.plan import read_plan
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools.calls import MAX_FILE
from agent_gateway.backend.embedded.tools.http_calls import MAX_TEXT, _result
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer

IMAGE = BinaryContent(b"x", media_type="image/png")


def test_a_summary_reads_words_calls_and_results_and_no_thoughts_and_no_files() -> None:
    asked = ModelRequest(parts=[UserPromptPart(content=["What is this?", IMAGE])])
    said = ModelResponse(
        parts=[ThinkingPart("Hm."), TextPart("I look."), ToolCallPart("look", {"at": "it"}, tool_call_id="1")]
    )
    found = ModelRequest(parts=[ToolReturnPart("look", {"is": "a cat"}, tool_call_id="1")])
    plain = ModelRequest(parts=[UserPromptPart(content="x" * (MAX_PART + 1))])
    assert [line for message in (asked, said, found) for line in _lines(message)] == [
        "User: What is this?",
        "Assistant: I look.",
        'The assistant calls look: {"at":"it"}',
        'look returns: {"is":"a cat"}',
    ]
    assert _lines(plain) == ["User: " + "x" * MAX_PART]


def plan_with(state: Any) -> Any:
    layers = [Layer("user", "plain.prompt", config={"user": "Hello"}), Layer("history", "history")]
    held = [{"name": "user"}, {"name": "history", "runtime_state": state}]
    snapshot = msgspec.Raw(msgspec.json.encode({"layers": held}))
    return read_plan(CreateRunRequest(Composition(1, layers), session_snapshot=snapshot))


def test_a_memory_that_cannot_be_read_fails_the_run_in_plain_words() -> None:
    with pytest.raises(RunFailed, match="the session snapshot cannot be read"):
        memory_of(plan_with({"messages": "secret"}))
    broken = memory_of(plan_with({"messages": [{"kind": "request", "parts": "secret"}]}))
    with pytest.raises(RunFailed, match="history cannot be read"):
        broken.history()


def test_rounds_of_one_turn_are_one_message_and_a_state_must_be_json() -> None:
    parts = [
        {"kind": "response", "parts": [{"part_kind": "text", "content": word}]} for word in ("Fi", "ne.")
    ]
    memory = memory_of(plan_with({"messages": parts}))
    assert [tuple(message) for message in memory.history()] == [("assistant", "Fine.")]
    assert Memory().after("Hi", "", {}).history()[0].text == "Hi"
    for state, why in ("x", "the state is no dict"), ({"a": object()}, "the state of the agent is not JSON"):
        with pytest.raises(RunFailed, match=why):
            Memory().after("Hi", "Ho", state)  # pyrefly: ignore[bad-argument-type]


def response(content: bytes, kind: str, status: int = 200) -> httpx2.Response:
    return httpx2.Response(
        status,
        headers={"content-type": kind},
        content=content,
        request=httpx2.Request("GET", "http://a.test"),
    )


@pytest.mark.anyio
async def test_an_answer_of_an_api_is_json_text_or_a_file() -> None:
    assert await _result(response(b'{"a": 1}', "application/json")) == {"a": 1}
    assert await _result(response(b"{", "application/json")) == "{"
    assert await _result(response(b"a", "text/plain; charset=utf-8")) == "a"
    assert await _result(response(b"", "text/plain", 204)) == "The API answered 204 without a body."
    assert await _result(response(b"x", "image/png")) == IMAGE
    assert await _result(response(b"x" * (MAX_TEXT + 1), "text/plain")) == "x" * MAX_TEXT
    with pytest.raises(ToolFailed, match="a file of more than"):
        await _result(response(b"x" * (MAX_FILE + 1), "image/png"))
    with pytest.raises(ToolFailed, match=r"answered 404\. gone"):
        await _result(response(b"gone", "text/plain", 404))
