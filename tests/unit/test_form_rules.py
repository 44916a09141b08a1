"""The rules of forms: valid submissions, and their text."""

from typing import Any

import pytest

from agent_gateway.domain.form_rules import (
    MAX_RENDERED,
    NO_ANSWER,
    TIMED_OUT,
    answer_of,
    filled,
    marked,
    query_of,
)
from agent_gateway.domain.human_input import (
    FormAction,
    FormAnswer,
    FormDefinition,
    FormInput,
    FormOption,
    Submission,
)
from agent_gateway.errors import InvalidParam

SIZE = FormInput("size", "select", "Size", True, (FormOption("s", "Small"), FormOption("l", "Large")))
NOTE = FormInput("note", "paragraph", "Note")
OK, NO = FormAction("ok", "Go on"), FormAction("no", "Stop")
FORM = FormDefinition("Title", "Sure?", (SIZE, NOTE), (OK, NO))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"size": "s"}, {"size": "s"}),
        ({"size": ["s", "l"], "note": ""}, {"size": ["s", "l"]}),
        ({"size": "l", "note": 0, "other": 1}, {"size": "l", "note": 0}),
        ({"size": "l", "note": {"any": [1]}}, {"size": "l", "note": {"any": [1]}}),
    ],
)
def test_valid_values_are_kept(given: dict[str, Any], kept: dict[str, Any]) -> None:
    assert answer_of(FORM, Submission("no", given)) == FormAnswer("submitted", NO, kept)


@pytest.mark.parametrize(
    ("action", "given", "named"),
    [
        ("maybe", {"size": "s"}, "action:"),
        ("ok", {}, "inputs.size:"),
        ("ok", {"size": []}, "inputs.size:"),
        ("ok", {"size": "Small"}, "inputs.size:"),
        ("ok", {"size": ["s", "x"]}, "inputs.size:"),
    ],
)
def test_invalid_values_are_refused_by_name(action: str, given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParam, match=named):
        answer_of(FORM, Submission(action, given))


def test_each_input_is_placed_once_in_the_text() -> None:
    assert marked(FORM) == "Sure?\n\nSize\n\n{{#$output.size#}}\n\nNote\n\n{{#$output.note#}}"
    placed = FormDefinition("", "How big: {{#$output.size#}}", (SIZE,), (OK,))
    assert marked(placed) == "How big: {{#$output.size#}}"


def test_a_filled_form_shows_the_submitted_values_verbatim() -> None:
    answer = FormAnswer("submitted", OK, {"size": "s", "note": "{{#$output.size#}}"})
    assert filled(FORM, answer) == "Sure?\n\nSize\n\nSmall\n\nNote\n\n{{#$output.size#}}"
    assert filled(FORM, FormAnswer("submitted", OK)).endswith("Note\n\n")
    assert filled(FORM, FormAnswer("submitted", message="Yes")) == "Yes"
    assert len(filled(FORM, FormAnswer("submitted", message="a" * 10**6))) == MAX_RENDERED + 1


def test_an_answer_becomes_the_query_of_its_turn() -> None:
    assert query_of(FORM, FormAnswer("submitted", OK, {"size": "l", "note": [1]})) == (
        "Go on\nSize: Large\nNote: [1]"
    )
    assert query_of(FORM, FormAnswer("submitted", message="Yes")) == "Yes"
    assert query_of(FORM, TIMED_OUT) == NO_ANSWER
