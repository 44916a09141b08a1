"""What small runs say is read leniently, and never taken for more than it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.backend.outputs import MOST_QUESTIONS, QUESTION_LENGTH, name_in, questions_in
from agent_gateway.domain import NAME_LENGTH


@pytest.mark.parametrize(
    ("output", "questions"),
    [
        ('["One?", "Two?"]', ["One?", "Two?"]),
        ('{"questions": ["One?", "Two?"]}', ["One?", "Two?"]),
        ('{"note": "x", "empty": [], "list": ["One?"]}', ["One?"]),
        ('{"first": "One?", "second": "Two?"}', ["One?", "Two?"]),
        ('"One?"', ["One?"]),
        ('```json\n["One?", "Two?"]\n```', ["One?", "Two?"]),
        ("One?\nTwo?", ["One?", "Two?"]),
        ("- One?\n\n  * Two?\n3. Three?\n4) Four?\n", ["One?", "Two?", "Three?", "Four?"]),
        ("2024 was what?\n5 or 6?", ["2024 was what?", "5 or 6?"]),
        ('["One?", "One?", " ", null, 3, {"a": 1}, "T\\n wo?"]', ["One?", "T wo?"]),
        (json.dumps([str(number) for number in range(9)]), ["0", "1", "2", "3", "4"]),
        ('["nul\\u0000", "half \\ud800"]', ["nul\ufffd", "half \ufffd"]),
        ("", []),
        ("null", []),
        ("3", []),
        ("[]", []),
        ("[" * 100_000, ["[" * QUESTION_LENGTH]),
    ],
)
def test_questions(output: str, questions: list[str]) -> None:
    assert questions_in(output) == questions


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("A trip to Rome", "A trip to Rome"),
        ('"A trip to Rome"', "A trip to Rome"),
        ('**"A trip"**\nbecause you asked', "A trip"),
        ('{"title": "A trip", "language": "en"}', "A trip"),
        ('{"score": 1, "title": " A\\n trip "}', "A trip"),
        ("word " * 40, "word " * 12 + "wor…"),
        ("", ""),
        ("{}", ""),
        (' "" ', ""),
    ],
)
def test_names(output: str, name: str) -> None:
    assert name_in(output) == name


@given(st.text() | st.recursive(st.text() | st.none(), st.lists).map(json.dumps))
def test_anything_is_read_and_stays_small(output: str) -> None:
    assert len(name_in(output)) <= NAME_LENGTH
    questions = questions_in(output)
    assert len(questions) <= MOST_QUESTIONS
    assert all(question.strip() and len(question) <= QUESTION_LENGTH for question in questions)
