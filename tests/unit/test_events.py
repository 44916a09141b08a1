"""Events sent so far + the rest of an ended turn = exactly the turn (R1, R13)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.protocol import RunEvent
from agent_gateway.causes import Cause, Failure
from agent_gateway.domain.events import (
    GATEWAY_END,
    GATEWAY_REPLACE,
    MAX_CHUNK,
    AgentThought,
    ClosingMessage,
    LLMChunk,
    MessageEnd,
    MessageFile,
    MessageReplace,
    Result,
    TurnEvent,
    TurnFailed,
    rest_of,
    split_text,
)
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.ids import FileId
from agent_gateway.domain.turns import Outcome, Step, Usage
from tests.support.fakes.forms import stored as with_form
from tests.support.fakes.run_events import delta, ends, fed, runs, steps_told, stored

USAGE = Usage(total_tokens=3)


def ended(outcome: Outcome, end_position: int, code: str | None = None) -> Result:
    """`Hello`, with a step that was opened at 2 and got its result at 4."""
    return Result(
        outcome=outcome,
        chunks=(LLMChunk(1, "Hel"), LLMChunk(3, "lo")),
        steps=(Step(1, 4, tool="look", observation="seen"),),
        end_position=end_position,
        error_code=code,
        usage=USAGE,
    )


HEL, LO = LLMChunk(1, "Hel"), LLMChunk(3, "lo")
LOOK = AgentThought(4, Step(1, 4, tool="look", observation="seen"))
REPLACE = MessageReplace(GATEWAY_REPLACE, "Hello", "turn_ended_early")


@pytest.mark.parametrize(
    ("after", "rest"),
    [
        (-1, [HEL, LO, LOOK, ClosingMessage(5, "Hello"), MessageEnd(6, USAGE)]),
        (0, [HEL, LO, LOOK, ClosingMessage(5, "Hello"), MessageEnd(6, USAGE)]),
        (1, [LO, LOOK, ClosingMessage(5, "Hello"), MessageEnd(6, USAGE)]),
        (2, [LO, LOOK, ClosingMessage(5, "Hello"), MessageEnd(6, USAGE)]),
        (3, [LOOK, ClosingMessage(5, "Hello"), MessageEnd(6, USAGE)]),
        (4, [ClosingMessage(5, "Hello"), MessageEnd(6, USAGE)]),
        (5, [MessageEnd(6, USAGE)]),
        (6, []),
        (2**63, []),
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.STOPPED])
def test_the_rest_of_an_ended_turn_begins_after_the_given_position(
    outcome: Outcome, after: int, rest: list[TurnEvent]
) -> None:
    assert rest_of(ended(outcome, 6), after) == rest


@pytest.mark.parametrize(
    ("after", "rest"),
    [
        (0, [HEL, LO, LOOK, TurnFailed(5, "turn_interrupted")]),
        (4, [TurnFailed(5, "turn_interrupted")]),
        (5, []),
    ],
)
def test_the_rest_of_a_failed_turn_ends_with_its_error(after: int, rest: list[TurnEvent]) -> None:
    assert rest_of(ended(Outcome.FAILED, 5, "turn_interrupted"), after) == rest


CLOSING, END = ClosingMessage(GATEWAY_REPLACE, "Hello"), MessageEnd(GATEWAY_END, USAGE)
FAILED = TurnFailed(GATEWAY_END, "turn_timeout")


@pytest.mark.parametrize(
    ("after", "stopped", "failed"),
    [
        (0, [HEL, LO, LOOK, CLOSING, END], [HEL, LO, LOOK, FAILED]),
        (3, [LOOK, CLOSING, END], [LOOK, FAILED]),
        (4, [CLOSING, END], [FAILED]),
        # Such a reader followed the run elsewhere, further than what was stored.
        (5, [REPLACE, END], [REPLACE, FAILED]),
        (GATEWAY_REPLACE - 1, [REPLACE, END], [REPLACE, FAILED]),
        (GATEWAY_REPLACE, [END], [FAILED]),
        (GATEWAY_END, [], []),
    ],
)
def test_a_turn_cut_short_is_replaced_for_readers_beyond_the_stored_text(
    after: int, stopped: list[TurnEvent], failed: list[TurnEvent]
) -> None:
    assert rest_of(ended(Outcome.STOPPED, GATEWAY_END), after) == stopped
    assert rest_of(ended(Outcome.FAILED, GATEWAY_END, "turn_timeout"), after) == failed


FILES = tuple(
    StoredFile(FileId(f"id-{number}"), f"image-{number}.png", "image", "image/png", 5) for number in (1, 2)
)


def failure(code: str | None) -> Failure | None:
    return Failure(code, Cause("Test")) if code else None


@pytest.mark.parametrize("code", [None, "turn_timeout"])
def test_files_of_a_turn_cut_short_follow_its_text(code: str | None) -> None:
    """They follow the replaced text, at positions of their own; the end follows them."""
    fold, _ = fed(delta("Hello"))
    result = cut_short(fold, failure(code), FILES)
    one, two = (MessageFile(file.position, file) for file in result.files)
    assert [one.position, two.position] == [GATEWAY_REPLACE + 1, GATEWAY_REPLACE + 2]
    failed = TurnFailed(GATEWAY_REPLACE + 4, code or "")
    end = MessageEnd(GATEWAY_REPLACE + 4, Usage(), result.files)
    last = [failed] if code else [ClosingMessage(GATEWAY_REPLACE + 3, "Hello"), end]
    assert rest_of(result, 1) == [one, two, *last]
    replace = MessageReplace(GATEWAY_REPLACE, "Hello", "turn_ended_early")
    assert rest_of(result, 7) == [replace, one, two, *last]
    assert rest_of(result, GATEWAY_REPLACE) == [one, two, *last]
    assert rest_of(result, GATEWAY_REPLACE + 1) == [two, *last]
    assert rest_of(result, GATEWAY_REPLACE + 2) == last
    assert rest_of(result, result.end_position) == []


def test_a_turn_without_stored_events_has_only_its_error() -> None:
    lost = Result(Outcome.FAILED, (), (), GATEWAY_END, "internal_server_error")
    failed = TurnFailed(GATEWAY_END, "internal_server_error")
    assert rest_of(lost, 0) == [failed]
    assert rest_of(lost, 7) == [MessageReplace(GATEWAY_REPLACE, "", "turn_ended_early"), failed]


def test_a_failure_always_has_a_code_and_an_end_always_has_usage() -> None:
    assert rest_of(Result(Outcome.FAILED, (), (), 1), 0) == [TurnFailed(1, "internal_server_error")]
    assert rest_of(Result(Outcome.STOPPED, (), (), 2), 1) == [MessageEnd(2, Usage())]


@given(st.integers(0, 3 * MAX_CHUNK), st.integers(1, 100))
def test_a_text_is_split_by_a_fixed_rule(length: int, position: int) -> None:
    text = "".join(chr(0x4E00 + number % 977) for number in range(length))
    pieces = split_text(text, position)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.position for piece in pieces] == list(range(position, position + len(pieces)))
    assert all(len(piece.text) == MAX_CHUNK for piece in pieces[:-1])
    assert all(0 < len(piece.text) <= MAX_CHUNK for piece in pieces)


# -- properties: wherever a reader was cut --------------------------------------------------------


def chunks(events: list[TurnEvent]) -> list[LLMChunk]:
    return [event for event in events if isinstance(event, LLMChunk)]


def ends_once(rest: list[TurnEvent], after: int, result: Result) -> None:
    """Positions grow from beyond `after` to the one terminal event, which is the last (I3)."""
    positions = [event.position for event in rest]
    assert positions == sorted(set(positions))
    assert positions[0] > after
    terminal = [event for event in rest if isinstance(event, MessageEnd | TurnFailed)]
    assert terminal == rest[-1:]
    assert positions[-1] == result.end_position


@given(runs, ends, st.booleans())
def test_a_stream_resumed_anywhere_gives_the_same_events_as_an_uncut_one(
    run: list[RunEvent], end: RunEvent, stop_asked: bool
) -> None:
    fold, told = fed(*run, end)
    result = with_form(conclude(fold, stop_asked=stop_asked, files=stored(fold)))
    uncut = [*told, *rest_of(result, fold.position)]
    for seen in range(len(uncut)):
        before, rest = uncut[:seen], rest_of(result, seen)
        ends_once(rest, seen, result)
        assert chunks(before) + chunks(rest) == chunks(uncut)
        # A step that still grows is emitted once, in its last form; nothing else is left out.
        assert [event for event in uncut[seen:] if event in rest] == rest
        assert {step.number: step for step in steps_told([*before, *rest])} == {
            step.number: step for step in steps_told(uncut)
        }
    assert rest_of(result, len(uncut)) == []


@given(runs, st.integers(0, 40), st.sampled_from([None, "turn_timeout"]))
def test_every_reader_of_a_turn_cut_short_ends_with_the_stored_text(
    run: list[RunEvent], size: int, code: str | None
) -> None:
    _, seen_elsewhere = fed(*run)
    fold, _ = fed(*run[:size])
    result = cut_short(fold, failure(code), stored(fold))
    for position in range(len(seen_elsewhere) + 1):
        rest = rest_of(result, position)
        ends_once(rest, position, result)
        text = "".join(chunk.text for chunk in chunks(seen_elsewhere[:position]))
        replaced = [event for event in rest if isinstance(event, MessageReplace)]
        assert bool(replaced) == (position > fold.position)
        for event in rest:
            match event:
                case LLMChunk():
                    text += event.text
                case MessageReplace():
                    text = event.text
                case ClosingMessage():
                    assert event.text == text
                case _:
                    pass
        assert text == result.answer
