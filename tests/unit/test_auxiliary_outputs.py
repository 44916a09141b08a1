"""Outputs of auxiliary runs are read leniently and within bounds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.backend.auxiliary_outputs import MAX_QUESTIONS, QUESTION_LENGTH, name_in, questions_in
from agent_gateway.domain.text import NAME_LENGTH


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
        ("<think>Which?\n- No</think>\n\n- One?\n- Two?", ["One?", "Two?"]),
        ("Which of them …\n</think>\nOne?\nTwo?", ["One?", "Two?"]),
        ('<thinking>a</thinking><think>b</think>["One?"]', ["One?"]),
        ("<think>It goes on and on", []),
        ('Here are three:\n\n```json\n["One?", "Two?"]\n```\nI hope they help!', ["One?", "Two?"]),
        ("```\nOne?\nTwo?\n```", ["One?", "Two?"]),
        ('```json\n["One?"]', ["One?"]),
        ("~~~\n1. One?\n~~~", ["One?"]),
        ('Sure! Here they are:\n["One?", "Two?"]', ["One?", "Two?"]),
        ('Sure.\n{"questions": ["One?"]}\nAnything else?', ["One?"]),
        ("Here are three questions:\n1. One?\n2. Two?\nLet me know!", ["One?", "Two?"]),
        ("**Questions:**\nOne?\nTwo?", ["One?", "Two?"]),
        ("(1) One?\n(2) Two?", ["One?", "Two?"]),
        ("You may ask:", ["You may ask:"]),
        ("", []),
        ("null", []),
        ("3", []),
        ("[]", []),
        ("[" * 100_000, ["[" * QUESTION_LENGTH]),
    ],
)
def test_suggested_questions_are_read_from_any_form(output: str, questions: list[str]) -> None:
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
        ("<think>\nThe user wants a name.\n</think>\n\nA trip to Rome", "A trip to Rome"),
        ("The user wants …</think>A trip", "A trip"),
        ("```\nA trip\n```", "A trip"),
        ('Here is a name:\n```json\n{"title": "A trip"}\n```', "A trip"),
        ("Sure! Here is a title for it:\n\n**A trip to Rome**", "A trip to Rome"),
        ("Title: A trip", "A trip"),
        ("**Conversation name:** A trip", "A trip"),
        ("标题：罗马之旅", "罗马之旅"),
        ("Names: how to choose", "Names: how to choose"),
        ("[Draft] A plan", "[Draft] A plan"),
        ("Rome: a trip", "Rome: a trip"),
        ("", ""),
        ("{}", ""),
        (' "" ', ""),
    ],
)
def test_a_name_is_read_from_any_form(output: str, name: str) -> None:
    assert name_in(output) == name


@given(st.text() | st.recursive(st.text() | st.none(), st.lists).map(json.dumps))
def test_any_output_is_read_within_the_bounds(output: str) -> None:
    assert len(name_in(output)) <= NAME_LENGTH
    questions = questions_in(output)
    assert len(questions) <= MAX_QUESTIONS
    assert all(question.strip() and len(question) <= QUESTION_LENGTH for question in questions)
