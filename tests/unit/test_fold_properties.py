"""Properties of the fold for any run."""

import json
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import TERMINAL, RunEvent
from agent_gateway.domain.events import MAX_CHUNK, rest_of
from agent_gateway.domain.text import clean_text
from agent_gateway.domain.turns import Usage
from tests.support.fakes.forms import stored as with_form
from tests.support.fakes.run_events import (
    delta,
    ends,
    fed,
    run_events,
    runs,
    steps_told,
    stored,
    texts_told,
    think,
    words,
)


@given(runs, st.none() | ends, st.lists(st.integers(0, 50), max_size=6))
def test_the_fold_is_the_same_in_any_batches(
    run: list[RunEvent], end: RunEvent | None, places: list[int]
) -> None:
    run = [*run, end] if end else run
    whole, told = fed(*run)
    fold = Fold()
    edges = [0, *sorted(places), len(run)]
    batched = [event for start, stop in pairwise(edges) for event in fold.feed(run[start:stop])]
    assert batched == told
    assert vars(fold) == vars(whole)


@given(runs, runs)
def test_a_fold_restored_from_a_checkpoint_continues_alike(run: list[RunEvent], rest: list[RunEvent]) -> None:
    """This includes files: a process that continues from it stores them as well."""
    fold, _ = fed(*run)
    restored = Fold.load(fold.dump())
    assert restored.feed(rest) == fold.feed(rest)
    assert vars(restored) == vars(fold)


@given(runs, st.data())
def test_a_longer_run_begins_like_a_shorter_one(run: list[RunEvent], data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(run)))
    _, told = fed(*run)
    _, before = fed(*run[:size])
    assert told[: len(before)] == before


@given(st.lists(st.integers(1, 3_000), max_size=60))
def test_emitted_thoughts_stay_linear_in_the_text(sizes: list[int]) -> None:
    fold, told = fed(*(think("t" * size) for size in sizes), delta("."))
    assert sum(len(step.thought) for step in fold.steps) == sum(sizes)
    assert sum(len(step.thought) for step in steps_told(told)) <= 3 * sum(sizes)


@given(runs, ends, st.booleans())
def test_positions_have_no_gap_and_chunks_add_up_to_the_answer(
    run: list[RunEvent], end: RunEvent, stop_asked: bool
) -> None:
    fold, told = fed(*run, end)
    assert [event.position for event in told] == list(range(1, fold.position + 1))
    decided = with_form(conclude(fold, stop_asked=stop_asked, files=stored(fold)))
    everything = [*told, *rest_of(decided, fold.position)]
    positions = [event.position for event in everything]
    # The place before the terminal event is taken in every case but that of a failed turn.
    assert positions == list(range(1, decided.end_position + 1))
    assert "".join(texts_told(everything)) == decided.answer
    assert clean_text(decided.answer) == decided.answer
    assert all(0 < len(text) <= MAX_CHUNK for text in texts_told(everything))
    assert [step.number for step in fold.steps] == list(range(1, len(fold.steps) + 1))
    assert {step.number: step for step in steps_told(told)} == {step.number: step for step in fold.steps}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(
    [
        *("part_start", "part_delta", "part_end", "function_tool_call", "function_tool_result"),
        *("text", "thinking", "file", "final_output"),
    ]
)


def some_of(names: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with some of these keys, each with a good value or any; or anything else."""
    return values | st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), value | values))


parts = some_of(
    "part_kind part_delta_kind content content_delta tool_name tool_call_id args question", kinds | words
)
counts = some_of("prompt_tokens total_price currency latency", st.integers() | st.floats().map(str))
insides = some_of(
    "event_kind part delta result output deferred_tool_call session_snapshot usage reason",
    kinds | parts | counts,
)
garbage = st.builds(
    RunEvent,
    type=st.sampled_from(["pydantic_ai_event"] * 6 + [*TERMINAL, "run_started", ""]),
    id=st.text(max_size=3),
    data=insides.map(lambda data: msgspec.Raw(json.dumps(data).encode()))
    | st.binary(max_size=20).map(msgspec.Raw),
    agent_message_delta=st.just(msgspec.UNSET) | values,
)


@given(st.lists(garbage | run_events, max_size=12), st.booleans())
def test_garbage_never_makes_the_fold_raise(run: list[RunEvent], stop_asked: bool) -> None:
    fold, told = fed(*run)
    assert [event.position for event in told] == list(range(1, fold.position + 1))
    end = conclude(fold, stop_asked=stop_asked) if fold.run_end else cut_short(fold, None)
    shown = [end.answer, *(text for step in fold.steps for text in msgspec.structs.astuple(step)[2:])]
    assert [clean_text(text) for text in shown] == shown
    json.dumps(msgspec.to_builtins(end.usage or Usage()), allow_nan=False)
    assert rest_of(end, 0)


def test_bottomless_nesting_does_not_make_the_fold_raise() -> None:
    for depth in (100, 400, 900, 5_000, 100_000):
        nested = b"[" * depth + b"]" * depth
        call = b'{"event_kind":"function_tool_call","part":{"tool_name":"a","args":%b}}' % nested
        end = b'{"output":%b,"usage":%b,"reason":%b}' % (nested, nested, nested)
        field = b'{"name":"a","default":%b}' % nested
        asked = b'{"deferred_tool_call":{"args":{"approval":{"a":%b},"fields":[%b]}}}' % (nested, field)
        for data in (nested, call, end, asked):
            for kind in ("pydantic_ai_event", "run_succeeded"):
                fed(RunEvent(type=kind, id="1", data=msgspec.Raw(data)))
