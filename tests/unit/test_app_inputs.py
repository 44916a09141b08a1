"""Which inputs fit a form: the whole table."""

from typing import Any

import pytest

from agent_gateway.apps.config import AppConfig
from agent_gateway.apps.inputs import merge_inputs, read_inputs
from agent_gateway.errors import InvalidParam

FORM = AppConfig.model_validate(
    {
        "name": "x",
        "user_input_form": [
            {"text-input": {"label": "A", "variable": "line", "max_length": 5}},
            {"paragraph": {"label": "B", "variable": "text", "max_length": None}},
            {"number": {"label": "C", "variable": "age"}},
            {"select": {"label": "D", "variable": "tone", "options": ["friendly", "brief", 1]}},
            {"file": {"label": "E", "variable": "picture"}},
            {"text-input": {"label": "F", "variable": "must", "required": True}},
            {"text-input": {"label": "G", "variable": "odd", "max_length": "5"}},
        ],
    }
).user_input_form
MUST = {"must": "x"}


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"line": "12345", "text": "x" * 100_000, "age": 7, "tone": "brief"},
        {"line": "", "text": "", "age": "", "tone": "", "picture": ""},
        {"line": None, "text": None, "age": None, "tone": None, "picture": None},
        {"line": "ééééé", "age": -1.5},
        {"line": "😀😀😀😀😀"},
        {"age": 0},
        {"tone": 1},
        {"picture": {"type": "image"}},
        {"picture": 7},
        {"odd": "much longer"},
        {"unheard of": ["anything", {}]},
    ],
)
def test_valid_inputs_are_accepted(inputs: dict[str, Any]) -> None:
    read_inputs(FORM, {**MUST, **inputs}, starting=True)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"must": None}, "inputs.must: is required"),
        ({"must": ""}, "inputs.must: is required"),
        ({"must": " \t\n"}, "inputs.must: is required"),
        ({"must": 7}, "inputs.must: must be text"),
        ({"line": "123456"}, "inputs.line: must be at most 5 characters long"),
        ({"line": 7}, "inputs.line: must be text"),
        ({"line": ["a"]}, "inputs.line: must be text"),
        ({"text": {}}, "inputs.text: must be text"),
        ({"text": False}, "inputs.text: must be text"),
        ({"age": "seven"}, "inputs.age: must be a number"),
        ({"age": "7 1"}, "inputs.age: must be a number"),
        ({"age": "1_0"}, "inputs.age: must be a number"),
        ({"age": "٧"}, "inputs.age: must be a number"),
        ({"age": "nan"}, "inputs.age: must be a number"),
        ({"age": "-"}, "inputs.age: must be a number"),
        ({"age": "1" * 400}, "inputs.age: must be a number"),
        (
            {"age": "x", "tone": "rude"},
            "inputs.age: must be a number; inputs.tone: must be one of the options",
        ),
        ({"age": True}, "inputs.age: must be a number"),
        ({"age": [7]}, "inputs.age: must be a number"),
        ({"tone": "rude"}, "inputs.tone: must be one of the options"),
        ({"tone": "Brief"}, "inputs.tone: must be one of the options"),
        ({"tone": True}, "inputs.tone: must be one of the options"),
        ({"tone": ["brief"]}, "inputs.tone: must be one of the options"),
    ],
)
def test_invalid_inputs_are_refused_by_name(inputs: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidParam) as raised:
        read_inputs(FORM, {**MUST, **inputs}, starting=True)
    assert raised.value.message == problem


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("5", 5),
        (" -7 ", -7),
        ("+3", 3),
        ("1.50", 1.5),
        (".5", 0.5),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", 9223372036854775808.0),
        (6, 6),
        ("", ""),
    ],
)
def test_a_number_can_be_given_as_text(sent: Any, taken: Any) -> None:
    read = read_inputs(FORM, {**MUST, "age": sent, "line": "5"}, starting=True)
    assert read == {**MUST, "age": taken, "line": "5"}
    assert type(read["age"]) is type(taken)


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_a_blank_required_input_keeps_the_conversations_value(blank: str | None) -> None:
    stored = {"must": "kept", "line": "a"}
    read = read_inputs(FORM, {"must": blank, "line": ""}, starting=False)
    assert merge_inputs(stored, read) == {"must": "kept", "line": ""}


def test_required_inputs_are_required_in_the_first_message_only() -> None:
    with pytest.raises(InvalidParam, match="must: is required"):
        read_inputs(FORM, {}, starting=True)
    read_inputs(FORM, {}, starting=False)
    with pytest.raises(InvalidParam, match="must: must be text"):
        read_inputs(FORM, {"must": 7}, starting=False)


def test_a_later_message_inherits_the_inputs_it_does_not_send() -> None:
    stored = {"a": 1, "b": "two"}
    assert merge_inputs(stored, {}) == stored
    assert merge_inputs(stored, {"b": "three", "c": []}) == {"a": 1, "b": "three", "c": []}
    assert merge_inputs(stored, {"a": None, "b": ""}) == {"a": 1, "b": ""}
    assert stored == {"a": 1, "b": "two"}
