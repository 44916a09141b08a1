"""Session snapshots on their way to a backend: kept byte for byte, fitted, or converted."""

import json
from typing import Any

import msgspec
import pytest

from agent_gateway.backend.snapshots import in_schema_1, in_schema_2
from tests.support.fakes.session import history_of
from tests.support.fakes.strict import failure, open_calls_of
from tests.support.paths import RECORDED


def recorded_snapshot(name: str) -> bytes:
    """The session snapshot of a recording's terminal event, cut out byte for byte."""
    data = (RECORDED / name).read_text("utf-8").rstrip().rpartition("\n")[2].removeprefix("data: ")
    event = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    return bytes(msgspec.json.decode(event["data"], type=dict[str, msgspec.Raw])["session_snapshot"])


def request_of(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.request.json").read_text("utf-8"))


def names_of(body: Any) -> list[str]:
    return [layer["name"] for layer in body["composition"]["layers"]]


def fitted(snapshot: str, *names: str) -> str:
    return bytes(in_schema_1(snapshot.encode(errors="replace"), names)).decode()


def named(snapshot: bytes) -> Any:
    """The snapshot as schema 2 gets it."""
    raw = in_schema_2(snapshot)
    assert raw is not None
    return json.loads(bytes(raw))


# -- the form is right already ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["multi_turn1.sse", "multi_turn2.sse", "unicode.sse", "tool.sse", "schema1/multi_turn2.sse"],
)
def test_a_list_that_fits_goes_back_byte_for_byte(name: str) -> None:
    snapshot = recorded_snapshot(name)
    names = [layer["name"] for layer in json.loads(snapshot)["layers"]]
    assert bytes(in_schema_1(snapshot, names)) == snapshot


@pytest.mark.parametrize("name", ["multi_turn2", "tool_parallel", "cancel_text"])
def test_an_object_goes_back_byte_for_byte(name: str) -> None:
    snapshot = recorded_snapshot(f"schema2/{name}.sse")
    raw = in_schema_2(snapshot)
    assert raw is not None
    assert bytes(raw) == snapshot


A = '{"name": "a",  "runtime_state":{"n":1.0, "big":123456789012345678901234567890}}'
B = '{"lifecycle_state":"suspended","name":"b","more":"\\u00e9 kept"}'
NEW = '{"name":"new","lifecycle_state":"new","runtime_state":{}}'
SNAPSHOT = f'{{"schema_version": 3, "layers": [{A}, {B}], "extra":{{"x": 1e2}}}}'


@pytest.mark.parametrize(
    ("names", "entries"),
    [
        (("a", "new", "b"), [A, NEW, B]),
        (("b", "a"), [B, A]),
        (("b",), [B]),
        (("new",), [NEW]),
        (("new", "b"), [NEW, B]),
    ],
)
def test_a_changed_composition_keeps_the_layers_it_still_has(
    names: tuple[str, ...], entries: list[str]
) -> None:
    expected = f'{{"schema_version":3,"layers":[{",".join(entries)}],"extra":{{"x": 1e2}}}}'
    assert fitted(SNAPSHOT, *names) == expected


def test_a_list_with_lone_surrogates_and_nan_is_kept() -> None:
    lone = '{"schema_version":1,"layers":[{"name":"a","t":"\\ud83d","n":NaN},{"name":"b"}]}'
    assert fitted(lone, "a", "b") == lone
    assert fitted(lone, "new", "a") == (
        '{"schema_version": 1, "layers": [{"name": "new", "lifecycle_state": "new", "runtime_state": {}}, '
        '{"name": "a", "t": "\\ud83d", "n": NaN}]}'
    )


# -- it is of the other generation --------------------------------------------------------------------


def test_an_object_becomes_the_list_that_was_recorded() -> None:
    body = request_of("cross/v2_converted_by_hand_to_schema1")
    snapshot = recorded_snapshot("schema2/multi_turn2.sse")
    assert json.loads(bytes(in_schema_1(snapshot, names_of(body)))) == body["session_snapshot"]


def test_layers_missing_from_an_object_begin_as_new() -> None:
    snapshot = b'{"schema_version":2,"layers":{"history":{"messages":[]},"shell":{"offset": 1.50}}}'
    assert bytes(in_schema_1(snapshot, ["soul", "shell", "history"])).decode() == (
        '{"schema_version":1,"layers":[{"name":"soul","lifecycle_state":"new","runtime_state":{}},'
        '{"name":"shell","lifecycle_state":"suspended","runtime_state":{"offset": 1.50}},'
        '{"name":"history","lifecycle_state":"suspended","runtime_state":{"messages":[]}}]}'
    )


@pytest.mark.parametrize(
    "name",
    ["cross/v1_snapshot_to_schema2", "cross/v1_snapshot_tool_to_schema2", "schema1/resume_after_failed"],
)
def test_only_the_history_of_a_list_is_sent_to_schema_2(name: str) -> None:
    given = request_of(name)["session_snapshot"]
    sent = named(json.dumps(given).encode())
    assert list(sent["layers"]) == ["history"]
    assert sent["schema_version"] == 2
    assert history_of(sent) == history_of(given) != []


def test_a_question_left_open_in_a_list_is_marked_as_interrupted() -> None:
    given = request_of("cross/v1_snapshot_pending_ask_to_schema2_new_turn")
    sent = named(json.dumps(given["session_snapshot"]).encode())
    *before, last = history_of(given["session_snapshot"])
    assert last["state"] == "complete"
    assert history_of(sent) == [*before, {**last, "state": "interrupted"}]
    # This lets a new turn continue after it.
    assert failure({**given, "session_snapshot": sent}, 2, "dify.") is None


def test_with_one_of_two_calls_answered_the_last_message_is_interrupted() -> None:
    calls = [{"part_kind": "tool-call", "tool_call_id": call} for call in ("a", "b")]
    messages: list[dict[str, Any]] = [
        {"kind": "request", "parts": [{"part_kind": "user-prompt"}]},
        {"kind": "response", "parts": calls, "state": "complete"},
        {
            "kind": "request",
            "parts": [{"part_kind": "tool-return", "tool_call_id": "a"}],
            "state": "complete",
        },
    ]
    assert open_calls_of(messages) == {"b"}
    assert states_in_schema_2(messages) == [None, "complete", "interrupted"]
    messages[2]["parts"] += [{"part_kind": "retry-prompt", "tool_call_id": "b"}]
    assert states_in_schema_2(messages) == [None, "complete", "complete"]


def states_in_schema_2(messages: list[dict[str, Any]]) -> list[str | None]:
    layer = {"name": "history", "lifecycle_state": "suspended", "runtime_state": {"messages": messages}}
    return [
        message.get("state")
        for message in history_of(named(json.dumps({"schema_version": 1, "layers": [layer]}).encode()))
    ]


def test_a_list_without_an_open_history_gives_no_snapshot_for_schema_2() -> None:
    assert (
        in_schema_2(b'{"layers":[{"name":"llm","lifecycle_state":"suspended","runtime_state":{}}]}') is None
    )
    assert in_schema_2(b'{"layers":[{"name":"history","lifecycle_state":"closed"}]}') is None
    assert named(b'{"layers":[{"name":"history"}]}') == {"schema_version": 2, "layers": {"history": {}}}


def test_invalid_json_values_are_replaced_when_the_form_changes() -> None:
    text = '"t\\ud83d"'
    messages = f'[{{"kind":"request","parts":[{{"part_kind":"user-prompt","content":{text}}}],"cost":NaN}}]'
    listed = f'{{"layers":[{{"name":"history","runtime_state":{{"messages":{messages}}}}}]}}'
    [message] = history_of(named(listed.encode()))
    assert message["parts"][0]["content"] == "t\ufffd"
    assert message["cost"] is None
    held = f'{{"layers":{{"history":{{"messages":{messages}}}}}}}'
    [message] = history_of(json.loads(bytes(in_schema_1(held.encode(), ["history"]))))
    assert message["parts"][0]["content"] == "t\ud83d"


@pytest.mark.parametrize("name", ["multi_turn2", "tool_parallel", "cancel_text"])
def test_the_history_survives_a_conversion_there_and_back(name: str) -> None:
    snapshot = recorded_snapshot(f"schema2/{name}.sse")
    listed = in_schema_1(snapshot, names_of(request_of(f"schema2/{name}")))
    assert history_of(named(bytes(listed))) == history_of(json.loads(snapshot)) != []


@pytest.mark.parametrize(
    "snapshot",
    [
        "",
        "null",
        "[]",
        "{}",
        "not json",
        '{"layers":',
        '{"layers":7}',
        '{"layers":[{}]}',
        "\ud800",
        "[" * 100_000,
    ],
    ids=range(10),
)
def test_an_invalid_snapshot_is_refused_by_both_conversions(snapshot: str) -> None:
    raw = snapshot.encode(errors="replace")
    with pytest.raises((ValueError, RecursionError)):
        in_schema_1(raw, ["a"])
    with pytest.raises((ValueError, RecursionError)):
        in_schema_2(raw)


@pytest.mark.parametrize("history", ["7", '{"messages":7}', '{"messages":[7]}'])
def test_an_unreadable_history_is_refused(history: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any text of the reader
        in_schema_2(f'{{"layers":[{{"name":"history","runtime_state":{history}}}]}}'.encode())
