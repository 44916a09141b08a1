"""Characters that deltas split are emitted whole, at the same positions in every process."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.tool_text import NESTED_TOO_DEEP
from agent_gateway.backend.fold.translate import FOLD_VERSIONS, Fold
from agent_gateway.backend.protocol import RunEvent, decode_event
from agent_gateway.causes import Cause, Failure
from agent_gateway.domain.events import AgentThought, LLMChunk, TurnEvent, rest_of
from agent_gateway.store.turns import chunk_offsets
from tests.support.fakes.run_events import agent, call, delta, file, result, succeeded, think, thought_over

HIGH, LOW, WHOLE, LOST = "\ud83d", "\ude00", "\U0001f600", "\ufffd"
NOW, BEFORE = FOLD_VERSIONS


def wire(event: RunEvent) -> RunEvent:
    """The event as it comes from a backend that writes JSON as Python does."""
    fields: dict[str, Any] = {"id": event.id, "type": event.type, "data": json.loads(bytes(event.data))}
    if event.agent_message_delta is not msgspec.UNSET:
        fields["agent_message_delta"] = event.agent_message_delta
    return decode_event(json.dumps(fields).encode())


def older(text: str) -> RunEvent:
    """A delta of a backend without the key `agent_message_delta`."""
    inner = {"event_kind": "part_delta", "delta": {"part_delta_kind": "text", "content_delta": text}}
    return RunEvent(type="pydantic_ai_event", id="1-0", data=msgspec.Raw(json.dumps(inner).encode()))


def told(*events: RunEvent, version: int = NOW) -> list[tuple[int, str]]:
    """Position and text of all events that are emitted while the run is active."""
    shown: list[tuple[int, str]] = []
    for event in Fold(version=version).feed([wire(event) for event in events]):
        assert isinstance(event, LLMChunk | AgentThought)
        shown.append((event.position, event.text if isinstance(event, LLMChunk) else event.step.thought))
    return shown


@pytest.mark.parametrize("say", [delta, older], ids=["delta", "older"])
def test_a_high_surrogate_is_held_back_until_the_low_one_arrives(say: Any) -> None:
    assert told(say("half " + HIGH), say(LOW + " done")) == [(1, "half "), (2, WHOLE + " done")]
    assert told(say(HIGH), say(LOW), say("!")) == [(1, WHOLE), (2, "!")]
    assert told(say("a" + HIGH), say(LOW + "b" + HIGH), say(LOW)) == [(1, "a"), (2, WHOLE + "b"), (3, WHOLE)]


def test_a_surrogate_without_its_pair_becomes_one_replacement_character() -> None:
    assert told(delta("a" + HIGH), delta("b")) == [(1, "a"), (2, LOST + "b")]
    assert told(delta("a" + HIGH), delta(HIGH + "b")) == [(1, "a"), (2, LOST + LOST + "b")]
    assert told(delta("a" + LOW), delta("b")) == [(1, "a" + LOST), (2, "b")]
    assert told(delta("a" + HIGH), succeeded(output="x")) == [(1, "a"), (2, LOST)]
    assert told(delta(HIGH), RunEvent(type="run_failed", id="2")) == [(1, LOST)]


def test_other_events_between_two_surrogates_do_not_separate_them() -> None:
    fold = Fold()
    events = [delta("a" + HIGH), call("weather"), result("weather"), file(b"x"), delta(LOW)]
    told = fold.feed([wire(event) for event in events])
    assert [event.position for event in told] == [1, 2, 3, 4]
    assert fold.answer == "a" + WHOLE


def test_a_surrogate_in_a_thought_is_held_back_too() -> None:
    start = think("Hm " + HIGH, start=True)
    assert told(start, think(LOW + " so"), thought_over()) == [(1, "Hm "), (2, f"Hm {WHOLE} so")]
    assert told(start, thought_over(), delta("a")) == [(1, "Hm "), (2, "Hm " + LOST), (3, "a")]
    assert told(start, delta("a")) == [(1, "Hm "), (2, "Hm " + LOST), (3, "a")]
    assert told(think(HIGH, start=True), think(LOW), delta("a")) == [(1, WHOLE), (2, "a")]
    assert told(think(HIGH, start=True), succeeded()) == [(1, LOST)]


def test_a_character_at_the_edge_of_two_steps_stays_whole() -> None:
    fold = Fold()
    fold.feed([wire(event) for event in (think("t" * 16_001 + HIGH, start=True), think(LOW), thought_over())])
    assert [step.thought for step in fold.steps] == ["t" * 16_000, "t" + WHOLE]


def test_surrogate_pairs_in_tool_arguments_and_results_are_joined() -> None:
    """Their JSON and their ids may escape a character as two surrogates, or hold only one."""
    fold = Fold()
    asked = call("weather" + HIGH, "c" + HIGH, {"city": "a" + HIGH})
    answered = result("weather", "c" + HIGH, [HIGH + LOW, HIGH])
    fold.feed([wire(event) for event in (call("w", "1", '{"x":"\\ud83d\\ude00"}'), asked, answered)])
    first, second = fold.steps
    assert first.tool_input == '{"x":"\\ud83d\\ude00"}'
    assert (second.tool, second.tool_input) == ("weather" + LOST, f'{{"city":"a{LOST}"}}')
    assert second.observation == f'["{WHOLE}","{LOST}"]'
    assert Fold.load(fold.dump()).steps == fold.steps


def test_a_deeply_nested_result_with_a_surrogate_does_not_end_the_turn() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    fold = Fold()
    told = fold.feed([wire(result("weather", "c", [HIGH, deep])), wire(delta("on"))])
    # How deep is too deep depends on the version of Python.
    assert fold.steps[0].observation.startswith((NESTED_TOO_DEEP, f'["{LOST}",[['))
    assert [event.position for event in told] == [1, 2]


def test_a_terminal_event_with_surrogates_is_read_and_keeps_its_snapshot() -> None:
    """A model's history may hold a lone surrogate: the backend gets it back unchanged."""
    held = {"layers": [{"name": "history", "t": HIGH}]}
    asked = {"args": {"question": "Sure? " + HIGH + LOW + HIGH}}
    fold = Fold()
    fold.feed([wire(succeeded(session_snapshot=held, deferred_tool_call=asked, usage={"total_tokens": 3}))])
    end = fold.run_end
    assert end is not None
    assert end.snapshot is not None
    assert json.loads(end.snapshot) == held
    assert end.text == f"Sure? {WHOLE}{LOST}"
    assert end.usage is not None
    assert end.usage.total_tokens == 3
    for output, text in (("a" + HIGH, "a" + LOST), ({"a": HIGH}, f'{{"a":"{LOST}"}}'), ([HIGH + LOW], None)):
        fold = Fold()
        fold.feed([wire(succeeded(output=output))])
        answer = conclude(fold, stop_asked=False).answer
        assert answer == text or json.loads(answer) == [WHOLE]


def test_a_turn_cut_short_leaves_out_the_held_surrogate() -> None:
    """A reader elsewhere may have got the whole character at that position."""
    fold = Fold()
    fold.feed([wire(delta("a" + HIGH))])
    cut = cut_short(fold, Failure("turn_timeout", Cause("RunSilent")))
    assert [(chunk.position, chunk.text) for chunk in cut.chunks] == [(1, "a")]


def test_the_previous_fold_version_replaces_each_surrogate() -> None:
    """Turns that the release before began are numbered as it numbers them (R17)."""
    events = [delta("half " + HIGH), delta(LOW + " done"), delta(HIGH), delta(LOW)]
    assert told(*events, version=BEFORE) == [(1, "half " + LOST), (2, LOST + " done"), (3, LOST), (4, LOST)]
    thoughts = [think("Hm " + HIGH, start=True), think(LOW), thought_over()]
    assert told(*thoughts, version=BEFORE) == [(1, "Hm " + LOST), (2, "Hm " + LOST + LOST)]


def test_the_previous_fold_version_ignores_linked_files() -> None:
    """The release before would store them as files without bytes."""
    part: dict[str, Any] = {"tool_name": "draw", "tool_call_id": "1", "part_kind": "tool-return"}
    part["metadata"] = {"tool_files": [{"url": "https://x.test/a.png", "mime_type": "image/png"}]}
    returned = agent("function_tool_result", part=part)
    files = {version: Fold(version=version) for version in FOLD_VERSIONS}
    for fold in files.values():
        fold.feed([returned])
    assert [made.url for made in Fold.load(files[NOW].dump()).files] == ["https://x.test/a.png"]
    assert not files[BEFORE].files


pieces = st.lists(st.sampled_from([HIGH, LOW, "a", "b" + HIGH, LOW + "c", "é", "x" * 40]), max_size=12)
some = st.builds(delta, st.text(max_size=3)) | st.sampled_from(
    [
        *(say(piece) for say in (delta, older, think) for piece in (HIGH, LOW, "a" + HIGH, LOW + "b", "c")),
        thought_over(),
        think(HIGH, start=True),
        call("weather"),
        result("weather"),
    ]
)


@given(pieces)
def test_the_answer_is_the_same_however_its_characters_were_split(pieces: list[str]) -> None:
    fold = Fold()
    fold.feed([wire(delta(piece)) for piece in pieces])
    fold.feed([succeeded(output="")])
    said = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert conclude(fold, stop_asked=False).answer == said


@given(st.lists(some, max_size=12), st.data(), st.sampled_from(FOLD_VERSIONS))
def test_a_fold_resumed_from_a_checkpoint_emits_the_same_events(
    run: list[RunEvent], data: st.DataObject, version: int
) -> None:
    """Every process emits the same events from any checkpoint, and the rows give them back."""
    run = [wire(event) for event in (*run, succeeded(output=""))]
    whole = Fold(version=version)
    told = whole.feed(run)
    at = data.draw(st.integers(0, len(run) - 1))
    fold = Fold(version=version)
    before = fold.feed(run[:at])
    restored = Fold.load(fold.dump(), version)
    assert before + restored.feed(run[at:]) == told
    assert vars(restored) == vars(whole)
    result = conclude(whole, stop_asked=False)
    assert chunk_offsets.unpack(chunk_offsets.pack(result.chunks), result.answer) == result.chunks
    for cursor in range(whole.position + 1):
        assert kept(rest_of(result, cursor)) == kept([event for event in told if event.position > cursor])


def kept(events: list[TurnEvent]) -> dict[int, str]:
    return {event.position: event.text for event in events if isinstance(event, LLMChunk)}


@given(st.lists(some, max_size=12))
def test_positions_have_no_gap_when_surrogates_are_held_back(run: list[RunEvent]) -> None:
    told = Fold().feed([wire(event) for event in run])
    assert all(after.position == before.position + 1 for before, after in pairwise(told))
