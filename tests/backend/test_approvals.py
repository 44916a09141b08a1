"""What is an approval and what is not, and how the form of many calls looks."""

from typing import Any

import pytest
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.tools import ToolApproved, ToolDenied

from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools.approval import approval_form, decision
from agent_gateway.backend.embedded.tools.deferred import _APPROVAL, NOT_ASKED, NOT_MADE, resumption
from agent_gateway.backend.fold.question import read_question
from tests.support.json_type import Json

APPROVED: Json = {
    "status": "submitted",
    "action": {"id": "approve", "label": "Approve"},
    "values": {},
    "message": None,
}


@pytest.mark.parametrize(
    "answer",
    [
        APPROVED | {"status": "timeout"},
        APPROVED | {"status": None},
        APPROVED | {"action": None},
        APPROVED | {"action": {"id": "Approve"}},
        APPROVED | {"action": {"id": "reject", "label": "approve"}},
        APPROVED | {"action": "approve"},
        APPROVED | {"action": None, "message": "approve"},
        {"action": {"id": "approve"}},
        "approve",
        ["approve"],
        True,
        None,
        {},
    ],
)
def test_only_the_button_of_the_form_is_an_approval(answer: Any) -> None:
    assert isinstance(decision(answer), ToolDenied)
    assert isinstance(decision(APPROVED), ToolApproved)


@pytest.mark.parametrize("count", [1, 2, 60])
def test_the_form_of_many_long_calls_keeps_its_buttons(count: int) -> None:
    calls = [ToolCallPart("send", {"text": "😀`" * 20_000}, str(number)) for number in range(count)]
    question = read_question({"tool_call_id": "0", "args": approval_form(calls)})
    assert [action.id for action in question.definition.actions] == ["approve", "reject"]
    assert question.text.count("more characters are left out") == count


def open_calls(*calls: tuple[str, str]) -> list[Any]:
    """A history that ends with these calls: names and ids. Those of `count` have their results."""
    parts = [ToolCallPart(name, {}, identity) for name, identity in calls]
    done = [ToolReturnPart(name, "1", identity) for name, identity in calls if name == "count"]
    return [ModelResponse(parts=parts), *([ModelRequest(parts=done)] if done else [])]


def test_each_open_call_gets_a_result_and_no_other_does() -> None:
    history = open_calls(("send", "a"), ("ask_human", "b"), ("count", "c"), ("send", "d"))
    results, words = resumption(history, {f"{_APPROVAL}a": APPROVED | {"values": {"comment": "once"}}})
    assert results.approvals == {"a": ToolApproved(), "d": ToolApproved()}
    assert results.calls == {"b": NOT_ASKED}
    assert words == "The user approved, and wrote: once"


def test_the_answer_to_a_question_approves_nothing() -> None:
    history = open_calls(("send", "a"), ("ask_human", "b"), ("ask_human", "c"))
    results, words = resumption(history, {"b": APPROVED})
    assert results.approvals == {"a": ToolDenied(NOT_MADE)}
    assert results.calls == {"b": APPROVED, "c": NOT_ASKED}
    assert words is None


def test_an_answer_that_is_not_of_an_approval_makes_no_call() -> None:
    results, _ = resumption(open_calls(("send", "a"), ("send", "b")), {"a": APPROVED})
    assert results.approvals == {"b": ToolDenied(NOT_MADE)}
    assert results.calls == {"a": APPROVED}, "it is the result itself, for the model"


@pytest.mark.parametrize("answers", [{"x": APPROVED}, {"c": APPROVED}, {"a": APPROVED, "x": APPROVED}, {}])
def test_an_answer_to_another_call_fails_the_run(answers: Any) -> None:
    with pytest.raises(RunFailed, match="do not belong to an open call"):
        resumption(open_calls(("send", "a"), ("count", "c")), answers)
