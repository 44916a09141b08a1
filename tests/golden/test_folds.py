"""Every recorded run, folded, against a transcript that a human has read next to the recording.

`UPDATE_GOLDENS=1 pytest tests/golden` writes the transcripts anew; read the difference before it is
committed. Recordings are real wire bytes of a backend; the ones without a terminal event were cut.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent_gateway.backend.fold.artifacts import as_stored
from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.translate import FOLD_VERSIONS, Fold
from agent_gateway.backend.protocol import RunEvent, decode_event
from agent_gateway.backend.sse import FrameDecoder
from agent_gateway.causes import Cause, Failure
from agent_gateway.domain.events import (
    AgentThought,
    ClosingMessage,
    FormAnswered,
    HumanInputRequired,
    LLMChunk,
    MessageEnd,
    MessageFile,
    MessageReplace,
    Result,
    TurnEvent,
    TurnFailed,
    rest_of,
)
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.turns import Outcome, Usage
from agent_gateway.errors import FAILURES
from tests.support.fakes.forms import stored
from tests.support.paths import RECORDED

GOLDEN = Path(__file__).parent / "folds"
MESSAGE_ID = "0192f3a0-0000-7000-8000-000000000001"
RUNS = sorted(path.name for path in [*RECORDED.glob("*.sse"), RECORDED / "race_two_terminal_events.json"])


def envelopes(name: str) -> list[bytes]:
    """The JSON of every run event of a recording."""
    wire = (RECORDED / name).read_bytes()
    if name.endswith(".sse"):
        return [data for _, _, data in FrameDecoder().feed(wire)]
    return [json.dumps(event, ensure_ascii=False).encode() for event in json.loads(wire)["events"]]


def run_events(name: str) -> list[RunEvent]:
    return [decode_event(envelope) for envelope in envelopes(name)]


def folded(events: list[RunEvent]) -> tuple[Fold, list[TurnEvent]]:
    fold = Fold()
    return fold, fold.feed(events)


def check(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.write_text(text, encoding="ascii")
    assert text == path.read_text(encoding="ascii")


# -- transcripts ----------------------------------------------------------------------------------


def lines_of(event: TurnEvent) -> Iterator[str]:
    match event:
        case LLMChunk(position, text):
            yield f"{position:6}  chunk {json.dumps(text)}"
        case AgentThought(position, step):
            yield f"{position:6}  step {step.number}"
            for name in ("thought", "tool", "tool_input", "observation"):
                if value := getattr(step, name):
                    yield f"          {name}: {json.dumps(value)}"
        case MessageReplace(position, text, reason):
            yield f"{position:6}  replace, {reason}: {json.dumps(text)}"
        case ClosingMessage(position):
            yield f"{position:6}  closing message"
        case HumanInputRequired(position) | FormAnswered(position):
            yield f"{position:6}  form"
        case MessageFile(position, file):
            yield f"{position:6}  file {json.dumps(file.name)}, {file.mime_type}, {file.size} bytes"
        case MessageEnd(position, usage):
            given = "no usage" if usage == Usage() else json.dumps(msgspec.to_builtins(usage))
            yield f"{position:6}  message_end, {given}"
        case TurnFailed(position, code):
            yield f"{position:6}  failed {code}"


def files_of(fold: Fold) -> list[StoredFile]:
    """The run's artifacts, as if all of them had been stored."""
    return [as_stored(made, MESSAGE_ID) for made in fold.files]


def told(title: str, events: list[TurnEvent]) -> Iterator[str]:
    yield ""
    yield title
    for event in events:
        yield from lines_of(event)
    if not events:
        yield "        nothing"


def ending(title: str, result: Result, position: int) -> Iterator[str]:
    rest = rest_of(stored(result), position)
    yield from told(f"{title}: {result.outcome}", rest)
    assert {event.text for event in rest if isinstance(event, ClosingMessage)} <= {result.answer}
    yield f"        answer {json.dumps(result.answer)}"
    kept = "stays" if result.snapshot is None else f"new, {len(result.snapshot)} characters"
    yield f"        snapshot {kept}"


def transcript(name: str) -> str:
    events = run_events(name)
    fold, running = folded(events)
    lines = [f"{name}: {len(events)} run events", *told("told while it runs", running)]
    if fold.run_end is None:
        for title, code in (("cut by the deadline", "turn_timeout"), ("stopped, no answer to it", None)):
            result = cut_short(fold, Failure(code, Cause("Test")) if code else None, files_of(fold))
            lines += ending(title, result, fold.position)
            lines += told(f"{title}, to a reader who is beyond", rest_of(result, fold.position + 3))
    else:
        result, stopped = (conclude(fold, stop_asked=asked, files=files_of(fold)) for asked in (False, True))
        lines += ending(fold.run_end.type, result, fold.position)
        if stopped == result:
            lines += ["", f"{fold.run_end.type} after a stop: the same"]
        else:
            lines += ending(f"{fold.run_end.type} after a stop", stopped, fold.position)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_folds_to_its_transcript(name: str) -> None:
    check(name, transcript(name))


def test_each_kind_of_run_event_folds_to_its_transcript() -> None:
    lines: list[str] = []
    for line in (RECORDED / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        if sample["kind"] == "comment":
            continue
        fold, running = folded([decode_event(json.dumps(sample["event"]).encode())])
        lines += ["", f"{sample['kind']}, from {sample['from']}"]
        lines += [line for event in running for line in lines_of(event)] or ["        nothing"]
        if fold.run_end is not None:
            lines += ending(fold.run_end.type, conclude(fold, stop_asked=False), fold.position)
    check("samples.jsonl", "\n".join(lines[1:]) + "\n")


def test_every_transcript_has_its_recording() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {*RUNS, "samples.jsonl"}


# -- what holds of all of them --------------------------------------------------------------------


def without_delta(envelope: bytes) -> bytes:
    fields = msgspec.json.decode(envelope, type=dict[str, msgspec.Raw])
    fields.pop("agent_message_delta", None)
    return msgspec.json.encode(fields)


@pytest.mark.parametrize("name", RUNS)
def test_runs_without_the_delta_key_fold_to_the_same_events(name: str) -> None:
    fold, running = folded(run_events(name))
    older, older_running = folded([decode_event(without_delta(envelope)) for envelope in envelopes(name)])
    assert (older_running, older.run_end, older.steps) == (running, fold.run_end, fold.steps)


@pytest.mark.parametrize("name", RUNS)
def test_the_previous_fold_version_numbers_recorded_runs_alike(name: str) -> None:
    fold, running = folded(run_events(name))
    before = Fold(version=FOLD_VERSIONS[1])
    assert (before.feed(run_events(name)), before.run_end) == (running, fold.run_end)


@pytest.mark.parametrize("name", [name for name in RUNS if name.endswith(".sse")])
def test_the_fold_is_the_same_however_the_bytes_were_split(name: str) -> None:
    wire = (RECORDED / name).read_bytes()
    _, whole = folded(run_events(name))
    for size in (1, 7, 100, 1460, 4096):
        decoder, fold = FrameDecoder(), Fold()
        pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
        assert whole == [
            event
            for piece in pieces
            for event in fold.feed([decode_event(data, cursor) for cursor, _, data in decoder.feed(piece)])
        ]


@pytest.mark.parametrize("name", RUNS)
def test_text_and_usage_equal_the_recorded_ones(name: str) -> None:
    wire = [json.loads(envelope) for envelope in envelopes(name)]
    fold, _ = folded(run_events(name))
    deltas = [event.get("agent_message_delta") for event in wire]
    assert [chunk.text for chunk in fold.chunks] == [delta for delta in deltas if delta]
    usage = next((event["data"]["usage"] for event in wire if "usage" in event["data"]), None)
    if usage:
        usage = {name: 0.0 if value is None else value for name, value in usage.items()}
    given = fold.run_end.usage if fold.run_end else None
    assert usage == (given and msgspec.to_builtins(given))


@pytest.mark.parametrize("name", RUNS)
def test_snapshots_keep_the_received_bytes(name: str) -> None:
    envelope = next(
        (e for e in envelopes(name) if json.loads(e)["data"].get("session_snapshot") is not None), None
    )
    fold, _ = folded(run_events(name))
    if envelope is None:
        assert fold.run_end is None or fold.run_end.snapshot is None
        return
    assert fold.run_end is not None
    snapshot = fold.run_end.snapshot
    assert snapshot is not None
    assert snapshot.encode() in envelope
    assert json.loads(snapshot) == json.loads(envelope)["data"]["session_snapshot"]


@pytest.mark.parametrize("name", RUNS)
def test_only_a_code_of_an_error_reaches_the_turn(name: str) -> None:
    failed = [json.loads(e)["data"] for e in envelopes(name) if b'"type":"run_failed"' in e]
    fold, running = folded(run_events(name))
    for data in failed:
        result = conclude(fold, stop_asked=False)
        assert result.outcome is Outcome.FAILED
        assert result.error_code in FAILURES
        assert data["error"]
        assert data["error"] not in repr((running, result, rest_of(result, 0), fold.run_end))
