"""Conversations are remembered: the session snapshot of one turn is where the next one starts."""

import json
from typing import Any

import pytest

from tests.support.chat import Chat
from tests.support.fakes.script import (
    Emit,
    Frame,
    Gate,
    Step,
    ask_human,
    cancelled,
    delta,
    fail,
    refuse,
    script,
    succeed,
    text,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import history_of
from tests.support.gateway_server import StartGateway

ODD = (
    '{"a": 1.50, "b":1e400, "big":123456789012345678901234567890, '
    '"c" :-0.0, "nul":"\\u0000", "é":"\\ud83d\\ude00"}'
)
"""JSON that no two libraries write alike."""


def said(snapshot: Any) -> list[Any]:
    return [part["content"] for message in history_of(snapshot) for part in message["parts"]]


def sent_snapshots(fake: ScriptedBackend) -> list[Any]:
    return [request.body.get("session_snapshot") for request in fake.requests]


def empty_layers(fake: ScriptedBackend) -> list[dict[str, Any]]:
    """The layers of a snapshot that fits the app's composition."""
    layers = fake.requests[0].body["composition"]["layers"]
    state: dict[str, Any] = {"lifecycle_state": "suspended", "runtime_state": {}}
    return [{"name": layer["name"], **state} for layer in layers]


def test_the_next_turn_starts_from_the_snapshot(chat: Chat, fake: ScriptedBackend) -> None:
    first = chat.blocking("My name is Ada")
    chat.blocking("Who am I?", conversation_id=first["conversation_id"])
    chat.streaming("And now?", conversation_id=first["conversation_id"])

    none, one, two = sent_snapshots(fake)
    assert none is None
    assert said(one) == ["My name is Ada", "You said: My name is Ada."]
    assert said(two) == [*said(one), "Who am I?", "You said: Who am I?."]


def test_a_new_conversation_starts_without_memory(chat: Chat, fake: ScriptedBackend) -> None:
    chat.blocking("My name is Ada")
    chat.blocking("Who am I?")
    assert sent_snapshots(fake) == [None, None]


def test_the_snapshot_is_sent_back_byte_for_byte(chat: Chat, fake: ScriptedBackend) -> None:
    first = chat.blocking()
    layers = json.dumps(empty_layers(fake))
    snapshot = f'{{ "schema_version": 1,\t"layers": {layers}, "extra": {ODD}}}'
    data = f'{{"output":"Hi","session_snapshot":{snapshot}}}'
    event = f'{{"id":"1999000000000-0","type":"run_succeeded","data":{data}}}'
    fake.queue(script(Frame(f"id: 1999000000000-0\nevent: run_succeeded\ndata: {event}\n\n".encode())))
    chat.blocking(conversation_id=first["conversation_id"])
    chat.blocking(conversation_id=first["conversation_id"])

    assert snapshot.encode() in fake.requests[2].raw


def test_memory_survives_a_restart(start_gateway: StartGateway, fake: ScriptedBackend, user: str) -> None:
    server = start_gateway()
    with server.client() as client:
        conversation_id = Chat(client, user).blocking("My name is Ada")["conversation_id"]
    server.stop()
    with start_gateway().client() as client:
        Chat(client, user).blocking("Who am I?", conversation_id=conversation_id)
    assert said(sent_snapshots(fake)[1]) == ["My name is Ada", "You said: My name is Ada."]


@pytest.mark.parametrize(
    "ending",
    [[fail()], [cancelled("server")], [Emit("run_succeeded", {"output": "x"})]],
    ids=["failed", "cancelled", "without"],
)
def test_a_turn_without_a_snapshot_keeps_the_old_one(
    chat: Chat, fake: ScriptedBackend, ending: list[Step]
) -> None:
    first = chat.blocking("One")["conversation_id"]
    fake.queue(script(text("Two, "), ending))
    chat.streaming("Two", conversation_id=first)
    third = chat.blocking("Three", conversation_id=first)

    _, second, after = sent_snapshots(fake)
    assert said(second) == said(after) == ["One", "You said: One."]
    assert third["answer"] == "You said: Three."


def test_a_run_that_was_never_created_keeps_the_old_snapshot(chat: Chat, fake: ScriptedBackend) -> None:
    first = chat.blocking("One")["conversation_id"]
    fake.queue(refuse(500))
    assert chat.post("Two", conversation_id=first).status_code == 500
    chat.blocking("Three", conversation_id=first)
    assert said(sent_snapshots(fake)[2]) == ["One", "You said: One."]


def test_a_failed_run_of_a_newer_backend_updates_the_snapshot(chat: Chat, fake: ScriptedBackend) -> None:
    first = chat.blocking("One")["conversation_id"]
    snapshot = {"schema_version": 1, "layers": empty_layers(fake), "mark": "from the failed run"}
    fake.queue(script(text("a"), fail(session_snapshot=snapshot, usage={"total_tokens": 12})))
    failed = chat.streaming("Two", conversation_id=first)
    chat.blocking("Three", conversation_id=first)

    assert failed.kinds == ["message", "error"]
    assert sent_snapshots(fake)[2] == snapshot
    assert chat.messages(first)[1]["total_tokens"] == 12


def test_a_question_to_a_human_is_stored_as_the_answer(chat: Chat, fake: ScriptedBackend) -> None:
    fake.queue(script(text("Let me ask. "), ask_human("Shall I delete it?", markdown="It is **big**.")))
    heard = chat.streaming("Delete it")
    assert heard.kinds[-1] == "message_end"
    assert heard.answer == "Let me ask. \n\nShall I delete it?\n\nIt is **big**."
    stored = chat.message(heard.conversation_id)
    assert (stored["answer"], stored["status"], stored["error"]) == (heard.answer, "normal", None)

    # What the user says next is the answer: as a normal turn over the open question it would fail.
    chat.blocking("Yes", conversation_id=heard.conversation_id)
    [answer] = fake.requests[1].body["deferred_tool_results"]["calls"].values()
    assert (answer["status"], answer["message"]) == ("submitted", "Yes")


def test_a_question_without_other_text_is_the_answer(chat: Chat, fake: ScriptedBackend) -> None:
    fake.queue(script(ask_human("Shall I?", markdown="")))
    answered = chat.blocking("Delete it")
    assert answered["answer"] == "Shall I?"
    assert answered["answer"] == chat.message(answered["conversation_id"])["answer"]


def test_a_queued_turn_remembers_the_one_before_it(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    """A turn keeps its snapshot to itself until it has ended; then the next one starts from it."""
    first = chat.blocking("One")["conversation_id"]
    fake.queue(script(text("Two"), gate, delta("!"), succeed()))
    with chat.open("Two", conversation_id=first) as stream:
        stream.until("Two")
        queued = chat.background("Three", conversation_id=first)
        gate.open()
        stream.rest()
    assert chat.resumed(queued["task_id"]).answer == "You said: Three."
    chat.blocking("Four", conversation_id=first)
    assert said(sent_snapshots(fake)[2])[-2:] == ["Two", "Two!"]
    assert said(sent_snapshots(fake)[3])[-2:] == ["Three", "You said: Three."]
