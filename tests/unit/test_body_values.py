"""Counting the values of a body: as a parser would, however it is cut, in a time that its size bounds."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.routes.http.body_values import MAX_VALUES, ValueCounter

TEXTS = st.text(st.sampled_from('ab,[{"\\ü\n😀:]}'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def counted(*pieces: bytes) -> int:
    counter = ValueCounter()
    for piece in pieces:
        counter.feed(piece)
    return counter.values


def commas_and_brackets(value: Any) -> int:
    """How many of them separate values, not counting those within texts."""
    match value:
        case dict() | list():
            inner = value.values() if isinstance(value, dict) else value
            return 1 + max(0, len(value) - 1) + sum(map(commas_and_brackets, inner))
        case _:
            return 0


@given(VALUES, st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_values_are_counted_wherever_the_body_is_cut(value: Any, cuts: list[int], escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places)]
    assert counted(*pieces) == counted(body) == 1 + commas_and_brackets(value)


@pytest.mark.parametrize(
    "body",
    [b"[" * 8_000_000, b'"' * 8_000_000, b'"' + b'\\"' * 4_000_000, b"\\" * 8_000_000, b'"a,' * 2_500_000],
    ids=["open", "quotes", "escaped quotes", "backslashes", "texts"],
)
def test_counting_takes_linear_time(body: bytes) -> None:
    """Bodies that are not JSON are included. The time is processor time: a second is far more than usual."""
    started = time.thread_time()
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    counter = ValueCounter()
    for piece in pieces:
        if counter.values <= MAX_VALUES:
            counter.feed(piece)
    assert time.thread_time() - started < 3
