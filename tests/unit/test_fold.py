"""The fold, rule by rule. Recorded runs: tests/golden."""

import base64
import json
from typing import Any

import msgspec
import pytest

from agent_gateway.backend.fold.artifacts import MAX_FILES, MAX_FILES_BYTES, as_stored
from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.question import NO_TEXT
from agent_gateway.backend.fold.tool_text import MAX_OBSERVATION, MAX_TOOL_INPUT, MAX_TOOL_NAME
from agent_gateway.backend.fold.translate import (
    FIRST_GROWTH,
    MAX_THOUGHT,
)
from agent_gateway.backend.protocol import TERMINAL, RunEvent, decode_event
from agent_gateway.causes import Cause, Failure
from agent_gateway.domain.events import GATEWAY_END, MAX_CHUNK, AgentThought, LLMChunk, rest_of
from agent_gateway.domain.turns import Outcome, Step, Usage
from agent_gateway.errors import FAILURES
from tests.support.fakes.run_events import (
    agent,
    call,
    delta,
    ended,
    event,
    fed,
    file,
    result,
    steps_told,
    stored,
    succeeded,
    texts_told,
    think,
    thought_over,
)

LINE = 512 * 1024


# -- text -----------------------------------------------------------------------------------------


def test_text_is_read_from_the_event_data_of_an_older_backend() -> None:
    _, told = fed(
        *(
            event("pydantic_ai_event", data)
            for data in (
                {"event_kind": "part_start", "part": {"part_kind": "text", "content": "Hel"}},
                {"event_kind": "part_delta", "delta": {"part_delta_kind": "text", "content_delta": "lo"}},
                {"event_kind": "part_delta", "delta": {"part_delta_kind": "text", "content_delta": ""}},
                {"event_kind": "part_end", "part": {"part_kind": "text", "content": "Hello"}},
            )
        )
    )
    assert told == [LLMChunk(1, "Hel"), LLMChunk(2, "lo")]


def test_text_of_a_newer_backend_is_not_repeated() -> None:
    part = {"part_kind": "text", "content": "Hello"}
    _, told = fed(
        event("pydantic_ai_event", {"event_kind": "part_start", "part": part}, agent_message_delta="Hello"),
        agent("part_start", part=part),
        agent("part_delta", delta={"part_delta_kind": "text", "content_delta": "Hello"}),
        agent("part_end", part=part),
    )
    assert told == [LLMChunk(1, "Hello")]


def test_a_huge_delta_is_split_into_chunks() -> None:
    text = "\N{GRINNING FACE}" * (2 * MAX_CHUNK + 5)
    fold, told = fed(delta(text), delta("x"))
    assert [len(piece) for piece in texts_told(told)] == [MAX_CHUNK, MAX_CHUNK, 5, 1]
    assert [event.position for event in told] == [1, 2, 3, 4]
    assert fold.position == 4
    assert "".join(texts_told(told)) == text + "x"
    assert max(len(json.dumps(piece)) for piece in texts_told(told)) < LINE - 2_000


def test_a_huge_output_is_split_into_chunks() -> None:
    text = "\x01" * (MAX_CHUNK + 1)
    end = ended(succeeded(output=text))
    assert (end.answer, [chunk.position for chunk in end.chunks], end.end_position) == (text, [1, 2], 4)


@pytest.mark.parametrize("bad", ["\x00", "\ud83d"], ids=["nul", "surrogate"])
def test_characters_that_databases_reject_are_replaced(bad: str) -> None:
    dirty, clean = f"a{bad}b", "a\N{REPLACEMENT CHARACTER}b"
    wire: list[dict[str, Any]] = [
        {"agent_message_delta": dirty, "data": {}},
        {"data": {"event_kind": "part_start", "part": {"part_kind": "text", "content": dirty}}},
        {"data": {"event_kind": "part_start", "part": {"part_kind": "thinking", "content": dirty}}},
        {
            "data": {
                "event_kind": "function_tool_call",
                "part": {"tool_name": dirty, "tool_call_id": "c", "args": dirty},
            }
        },
        {"data": {"event_kind": "function_tool_result", "part": {"tool_call_id": "c", "content": [dirty]}}},
    ]
    envelopes = [{"id": "1", "type": "pydantic_ai_event", **fields} for fields in wire]
    end = {"id": "2", "type": "run_succeeded", "data": {"deferred_tool_call": {"args": {"question": dirty}}}}
    fold, told = fed(*(decode_event(json.dumps(fields).encode()) for fields in [*envelopes, end]))
    assert texts_told(told) == [clean, clean]
    assert fold.steps[0].thought == clean
    assert fold.steps[1] == Step(2, 5, tool=clean, tool_input=clean, observation=f'["{clean}"]')
    assert conclude(fold, stop_asked=False).answer == f"{clean}{clean}\n\n{clean}"


# -- the answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("Hi", "Hi"),
        ("  Hi\n", "  Hi\n"),
        ('"quoted"', '"quoted"'),
        ("", ""),
        (None, ""),
        (0, "0"),
        (False, "false"),
        ({"city": "Köln"}, '{"city":"Köln"}'),
        ([1, "a"], '[1,"a"]'),
    ],
)
def test_without_streamed_text_the_output_is_the_answer(output: Any, answer: str) -> None:
    raw = msgspec.Raw(msgspec.json.encode({"output": output}))
    end = ended(RunEvent(type="run_succeeded", id="1", data=raw))
    assert end.answer == answer
    assert [event.position for event in rest_of(end, 0)] == ([1, 2, 3] if answer else [1, 2])


def test_streamed_text_is_the_answer_even_if_the_output_differs() -> None:
    end = ended(
        delta("Let me see. "), call("look"), result("look"), delta("Done."), succeeded(output="Done.")
    )
    assert end.answer == "Let me see. Done."


def test_a_question_follows_the_streamed_text() -> None:
    question = {"tool_name": "ask_human", "args": {"question": "Sure?", "markdown": "**It is final.**"}}
    end = ended(delta("One moment."), succeeded(deferred_tool_call=question, session_snapshot={"a": 1}))
    assert end.answer == "One moment.\n\nSure?\n\n**It is final.**"
    assert end.snapshot is None


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        ({"question": " Sure? ", "title": "T"}, "Sure?"),
        ('{"question": "Sure?"}', "Sure?"),
        ({"title": "Approval"}, "Approval"),
        ({"question": 5}, NO_TEXT),
        ("not JSON", NO_TEXT),
        (None, NO_TEXT),
    ],
)
def test_a_question_is_read_leniently(args: Any, answer: str) -> None:
    end = ended(succeeded(deferred_tool_call={"args": args}, session_snapshot={}))
    assert (end.outcome, end.answer, end.snapshot) == (Outcome.COMPLETED, answer, None)


@pytest.mark.parametrize("nothing", [{}, [], "x"])
def test_an_unreadable_question_keeps_the_old_snapshot(nothing: Any) -> None:
    assert ended(succeeded(deferred_tool_call=nothing, session_snapshot={})).snapshot is None


def test_a_null_tool_call_is_not_a_question() -> None:
    end = ended(succeeded(deferred_tool_call=None, output="Hi", session_snapshot={"a": 1}))
    assert (end.answer, end.snapshot) == ("Hi", '{"a": 1}')


# -- steps ----------------------------------------------------------------------------------------


def test_parallel_tool_results_are_matched_to_their_calls() -> None:
    fold, _ = fed(
        call("a", "1"),
        call("a", "2"),
        call("b", "3"),
        result("b", "3", "third"),
        result("a", "2", {"n": 2}, key="result"),
        result(None, "1", None),
    )
    assert [(step.number, step.tool, step.observation) for step in fold.steps] == [
        (1, "a", ""),
        (2, "a", '{"n":2}'),
        (3, "b", "third"),
    ]
    assert [step.position for step in fold.steps] == [6, 5, 4]


def test_a_call_id_used_again_in_a_later_round_is_a_new_step() -> None:
    fold, _ = fed(
        *(
            call("a", "1", "first"),
            result("a", "1", "one"),
            call("b", "1", "second"),
            result("b", "1", "two"),
        ),
        *(call("c", ""), call("d", "")),
    )
    assert [(step.tool, step.tool_input, step.observation) for step in fold.steps] == [
        ("a", "first", "one"),
        ("b", "second", "two"),
        ("c", "{}", ""),
        ("d", "{}", ""),
    ]


def test_a_result_without_a_call_becomes_a_step_with_its_name() -> None:
    assert steps_told(fed(result("late", "9"), result(None, "8"))[1]) == [
        Step(1, 1, tool="late", observation="done")
    ]


def test_the_output_tool_is_never_shown() -> None:
    retry = {
        "tool_name": "final_output",
        "tool_call_id": "c1",
        "content": ["bad"],
        "part_kind": "retry-prompt",
    }
    part = {"tool_name": "final_output", "tool_call_id": "c1", "args": "{}", "part_kind": "tool-call"}
    _, told = fed(
        agent("part_start", part=part),
        agent("final_result", tool_name="final_output", tool_call_id="c1"),
        agent("part_end", part=part),
        agent("output_tool_call", part=part),
        agent("output_tool_result", part=retry),
        agent("function_tool_call", part=part),
        agent("function_tool_result", part=retry),
        agent("function_tool_result", result=retry),
        result(None, "c1"),
    )
    assert told == []


def test_long_inputs_and_observations_are_cut_with_a_note() -> None:
    worst = "\N{GRINNING FACE}"
    length = 10 * MAX_OBSERVATION
    fold, _ = fed(
        call(worst * 10_000, "1", worst * length),
        result(None, "1", worst * length),
        call("b", "2", "x" * MAX_TOOL_INPUT),
        result("b", "2", "y" * MAX_OBSERVATION),
    )
    cut, whole = fold.steps
    assert cut.tool == worst * MAX_TOOL_NAME
    assert cut.tool_input == worst * MAX_TOOL_INPUT + f"… [cut: {length} characters in all]"
    assert cut.observation == worst * MAX_OBSERVATION + f"… [cut: {length} characters in all]"
    assert (whole.tool_input, whole.observation) == ("x" * MAX_TOOL_INPUT, "y" * MAX_OBSERVATION)
    assert len(json.dumps(msgspec.to_builtins(cut))) < LINE - 2_000


def test_each_reasoning_segment_is_one_step() -> None:
    fold, told = fed(
        *(think("I ", start=True), think("see."), thought_over()),
        *(think("And", start=True), delta("Text."), think("more"), call("a"), think("")),
        *(think("x", start=True), think("y", start=True)),
    )
    assert [step.thought or step.tool for step in fold.steps] == ["I see.", "And", "more", "a", "x", "y"]
    assert [event.position for event in told] == list(range(1, len(told) + 1))


OLDER_TEXT = event(
    "pydantic_ai_event",
    {"event_kind": "part_delta", "delta": {"part_delta_kind": "text", "content_delta": "x"}},
)


@pytest.mark.parametrize("other", [delta("x"), OLDER_TEXT, call("x")], ids=["text", "older text", "call"])
def test_a_thought_is_emitted_whole_before_the_next_text_or_call(other: RunEvent) -> None:
    text_over = agent("part_end", part={"part_kind": "text", "content": "ignored"})
    _, told = fed(think("a"), text_over, think("b"), other, think("c"))
    thoughts = [event.step.thought if isinstance(event, AgentThought) else "x" for event in told]
    assert (thoughts[:2], thoughts[3:]) == (["a", "ab"], ["c"])


def test_a_growing_thought_is_emitted_when_it_has_doubled_and_at_its_end() -> None:
    _, told = fed(*(think("x") for _ in range(300)), delta("."))
    assert [len(step.thought) for step in steps_told(told)] == [1, FIRST_GROWTH, 64, 128, 256, 300]


def test_a_long_thought_is_split_into_several_steps() -> None:
    text = "".join(chr(0x4E00 + number % 1000) for number in range(3 * MAX_THOUGHT + 7))
    for size in (1, MAX_THOUGHT, len(text)):
        fold, told = fed(*(think(text[i : i + size]) for i in range(0, len(text), size)), succeeded())
        assert "".join(step.thought for step in fold.steps) == text
        assert [len(step.thought) for step in fold.steps] == [MAX_THOUGHT] * 3 + [7]
        assert sum(len(step.thought) for step in steps_told(told)) <= 3 * len(text)
        assert len(json.dumps(msgspec.to_builtins(fold.steps[0]))) < LINE - 2_000


# -- the end --------------------------------------------------------------------------------------


def test_events_after_the_terminal_one_are_ignored() -> None:
    fold, told = fed(delta("a"), succeeded(output="a"), event("run_cancelled"), delta("b"), call("c"))
    assert told == [LLMChunk(1, "a")]
    assert fold.feed([delta("d"), event("run_failed")]) == []
    assert conclude(fold, stop_asked=True).outcome is Outcome.COMPLETED
    assert conclude(fold, stop_asked=True).answer == "a"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("InvokeRateLimitError", "rate_limit_error"),
        ("InvokeAuthorizationError", "provider_not_initialize"),
        ("InvokeBadRequestError", "completion_request_error"),
        ("InvokeConnectionError", "provider_unavailable"),
        ("InvokeServerUnavailableError", "provider_unavailable"),
        ("shutdown", "service_unavailable"),
        ("PluginDaemonInternalServerError", "internal_server_error"),
        ("SomethingNew", "internal_server_error"),
        (None, "internal_server_error"),
        ({"not": "text"}, "internal_server_error"),
    ],
)
def test_the_reason_of_a_failed_run_becomes_an_error_code(reason: Any, code: str) -> None:
    end = ended(delta("Half"), event("run_failed", {"error": "sk-secret", "reason": reason}))
    assert (end.outcome, end.error_code, end.answer) == (Outcome.FAILED, code, "Half")
    assert end.end_position == 2
    assert code in FAILURES
    assert "sk-secret" not in repr(end)


@pytest.mark.parametrize(
    ("error", "kind", "status", "said"),
    [
        ("maria.rossi: quota exceeded", "run_failed", None, ""),
        ("hunterhunter", "run_failed", None, ""),
        ("status_code: 404, {'code': 'model_not_found'}", "run_failed", 404, "model_not_found"),
        ("Error code: 429 - {'key': 'sk-secret'}", "run_failed", 429, ""),
        ("in the year 404 nothing", "run_failed", None, ""),
    ],
)
def test_of_the_text_of_an_error_only_what_is_known_is_told(
    error: str, kind: str, status: int | None, said: str
) -> None:
    cause = ended(event("run_failed", {"error": error})).cause
    assert cause is not None
    assert (cause.kind, cause.status, cause.said) == (kind, status, said)


TOLD = '"finish_reason":"length"'
SNAPSHOT = {"layers": [{"messages": [{"finish_reason": "stop"}, {"text": TOLD}]}]}


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("run_succeeded", {"output": "a"}, "stop"),
        ("run_succeeded", {"output": "a", "finish_reason": "length"}, "length"),
        ("run_succeeded", {"output": "a", "finish_reason": "made up"}, None),
        ("run_failed", {}, None),
        ("run_cancelled", {}, None),
    ],
)
def test_the_finish_reason_is_that_of_this_run(
    kind: str, more: dict[str, object], reason: str | None
) -> None:
    """The snapshot of a run that failed ends with an answer from before it."""
    assert ended(event(kind, {"session_snapshot": SNAPSHOT, **more})).finish_reason == reason


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (event("run_failed", {"error": "x", "reason": "InvokeRateLimitError"}), Outcome.STOPPED),
        (event("run_cancelled", {"reason": "user"}), Outcome.STOPPED),
        (succeeded(deferred_tool_call={"args": {"question": "Sure?"}}), Outcome.STOPPED),
        (succeeded(output="Whole"), Outcome.COMPLETED),
    ],
    ids=["failed", "cancelled", "question", "succeeded"],
)
def test_a_stopped_turn_is_completed_only_if_its_run_succeeded(last: RunEvent, outcome: Outcome) -> None:
    end = ended(delta("Half"), last, stop_asked=True)
    assert (end.outcome, end.error_code, end.answer, end.end_position) == (outcome, None, "Half", 3)


def test_a_run_cancelled_without_a_stop_is_an_interrupted_turn() -> None:
    assert ended(event("run_cancelled")).error_code == "turn_interrupted"


@pytest.mark.parametrize("kind", sorted(TERMINAL))
def test_snapshot_and_usage_are_taken_from_any_terminal_event(kind: str) -> None:
    data = b'{"session_snapshot": {"b": 1,  "a": "\\u0000"}, "usage": {"total_tokens": 3}, "output": ""}'
    fold, _ = fed(RunEvent(type=kind, id="1", data=msgspec.Raw(data)))
    for stop_asked in (False, True):
        end = conclude(fold, stop_asked=stop_asked)
        assert end.snapshot == '{"b": 1,  "a": "\\u0000"}'
        assert end.usage == Usage(total_tokens=3)


@pytest.mark.parametrize("snapshot", [None, "text", 5, []])
def test_a_snapshot_that_is_not_an_object_is_ignored(snapshot: Any) -> None:
    assert ended(succeeded(output="x", session_snapshot=snapshot)).snapshot is None


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"prompt_tokens": 7, "total_price": "0.0000070"}, Usage(prompt_tokens=7, total_price="0.0000070")),
        ({"prompt_tokens": "7", "latency": "0.25"}, Usage(prompt_tokens=7, latency=0.25)),
        ({"prompt_tokens": 7.0, "latency": 2}, Usage(prompt_tokens=7, latency=2.0)),
        ({"total_price": 1e-7, "prompt_price": 2}, Usage(total_price="0.0000001", prompt_price="2")),
        ({"currency": "E\x00R" + "x" * 99}, Usage(currency="E\N{REPLACEMENT CHARACTER}R" + "x" * 13)),
        ({"prompt_tokens": 10**30, "latency": "nan", "total_price": "free"}, Usage()),
        ({"prompt_tokens": -1, "latency": "inf", "total_price": "1" * 9_999}, Usage()),
        ({"prompt_tokens": True, "latency": None, "total_price": [], "unknown": 1}, Usage()),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_usage_is_read_field_by_field(given: Any, usage: Usage | None) -> None:
    assert ended(succeeded(output="x", usage=given)).usage == usage


def test_a_turn_cut_short_keeps_the_events_already_emitted() -> None:
    fold, told = fed(think("Well", start=True), delta("Half"), call("a"))
    failed, stopped = cut_short(fold, Failure("turn_timeout", Cause("RunSilent"))), cut_short(fold, None)
    assert (failed.outcome, failed.error_code) == (Outcome.FAILED, "turn_timeout")
    assert (stopped.outcome, stopped.error_code) == (Outcome.STOPPED, None)
    for end in (failed, stopped):
        assert (end.answer, end.end_position, end.snapshot) == ("Half", GATEWAY_END, None)
        assert rest_of(end, 0)[: len(told)] == told


# -- files ------------------------------------------------------------------------------------------


def test_files_are_kept_in_order_and_emitted_only_at_the_end() -> None:
    binary = {"kind": "binary", "data": base64.b64encode(b"two").decode(), "media_type": "audio/mpeg"}
    fold, told = fed(
        delta("Look: "),
        file(b"one"),
        call("draw"),
        result("draw", content=["text", binary, {"kind": "image-url"}]),
        result("draw", content=binary),
    )
    assert [event.position for event in told] == [1, 2, 3, 4]
    assert [(made.number, made.media_type, made.data) for made in fold.files] == [
        (1, "image/png", b"one"),
        (2, "audio/mpeg", b"two"),
        (3, "audio/mpeg", b"two"),
    ]
    fold.feed([succeeded(output="x")])
    decided = conclude(fold, stop_asked=False, files=stored(fold)[1:])
    assert [made.position for made in decided.files] == [5, 6]
    assert decided.end_position == 8


def test_an_artifact_has_the_same_id_in_every_process() -> None:
    """A process may die between storing a file and the turn's end: the next one stores the same object."""
    message, other = "0197f000-0000-7000-8000-000000000001", "0197f000-0000-7000-8000-000000000002"
    run = [delta("Look: "), file(b"one"), file(b"two")]
    ids = [[as_stored(made, of).id for made in fed(*run)[0].files] for of in (message, message, other)]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("aGk=", b"hi"),
        ("aGk", b"hi"),
        ("-_-_", b"\xfb\xff\xbf"),
        ("+/+/", b"\xfb\xff\xbf"),
        ("", None),
        ("a", None),
        ("n\u00f6", None),
        ("aGk=\n", None),
        (None, None),
        (7, None),
    ],
)
def test_base64_of_a_file_is_decoded_or_counted_as_left_out(data: Any, kept: bytes | None) -> None:
    part = {"part_kind": "file", "content": {"data": data, "media_type": "image/png"}}
    fold, told = fed(agent("part_start", part=part))
    assert told == []
    assert [made.data for made in fold.files] == ([] if kept is None else [kept])
    assert fold.files_left_out == (kept is None)


def test_files_are_bounded_in_number_and_in_total_size() -> None:
    fold, _ = fed(*(file(b"x") for _ in range(MAX_FILES + 3)))
    assert (len(fold.files), fold.files_left_out) == (MAX_FILES, 3)
    half = b"x" * (MAX_FILES_BYTES // 2)
    fold, _ = fed(file(half), file(half + b"x"), file(half), file(b"x"))
    assert ([len(made.data) for made in fold.files], fold.files_left_out) == ([len(half), len(half)], 2)
