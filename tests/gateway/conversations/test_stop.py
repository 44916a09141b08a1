"""Stopping a turn: whenever, by whom, and whatever the backend makes of it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.support.chat import Chat, Heard
from tests.support.fakes.script import (
    Gate,
    Script,
    ask_human,
    delta,
    fail,
    refuse,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.gateway_server import BOUND, GatewayServer
from tests.support.json_type import Json
from tests.support.rows import newest_turn


def assert_stopped(chat: Chat, heard: Heard, answer: str) -> None:
    """The stream ended well, the partial answer is stored, and the conversation continues."""
    assert heard.kinds[-1] == "message_end"
    assert heard.kinds.count("message_end") == 1
    assert "error" not in heard.kinds
    assert heard.answer == answer
    stored = chat.message(heard.last["conversation_id"])
    assert (stored["answer"], stored["status"], stored["error"]) == (answer, "normal", None)
    again = chat.blocking("Still there?", conversation_id=heard.last["conversation_id"])
    assert again["answer"] == "You said: Still there?."


def test_a_stop_keeps_the_partial_answer(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("One ", "two "), gate, delta("three"), succeed()))
    with chat.open() as stream:
        stream.until("two ")
        assert chat.stop(stream.task_id) == {"result": "success"}
        fake.wait_until(lambda: len(fake.cancels) == 1)
        heard = stream.rest()
    assert heard.last["event_id"] < 1_000_000_000, "the run's own end: nobody waited longer than for that"
    assert fake.cancels[0].run_id == list(fake.runs)[-1]
    assert_stopped(chat, heard, "One two ")
    assert len(fake.cancels) == 1


def test_a_stop_before_any_text_ends_the_turn(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(gate, text("Too late"), succeed()))
    with chat.open() as stream:
        fake.wait_until(lambda: len(fake.streams) == 1)
        chat.stop(stream.task_id)
        assert_stopped(chat, stream.rest(), "")


def test_a_blocking_caller_gets_the_partial_answer(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    first = chat.blocking("First")
    fake.queue(script(text("Half"), gate, delta(" whole"), succeed()))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(chat.blocking, "Second", conversation_id=first["conversation_id"])
        fake.wait_until(lambda: fake.open_streams == 1 and len(fake.requests) == 2)
        chat.stop(newest_turn(server.settings.resolved_database_url(), first["conversation_id"]))
        assert waiting.result(BOUND)["answer"] == "Half"


def test_a_stop_while_the_run_is_being_created_ends_the_turn(chat: Chat, fake: ScriptedBackend) -> None:
    """Before the run's id is known there is nothing to cancel; as soon as it is, it is cancelled."""
    asked, answer = threading.Event(), threading.Event()
    never = Gate()

    def slowly(_: Any) -> Script:
        asked.set()
        assert answer.wait(BOUND)
        return script(never, text("Too late"), succeed())

    fake.queue(slowly)
    begun = chat.background()
    try:
        assert asked.wait(BOUND)
        assert chat.stop(begun["task_id"]) == {"result": "success"}
        assert not fake.cancels
    finally:
        answer.set()
    fake.wait_until(lambda: len(fake.cancels) == 1)
    assert_stopped(chat, chat.resumed(begun["task_id"]), "")
    assert len(fake.requests) == 2, "one run each for the stopped turn and the next"


def test_a_stop_while_the_backend_refuses_ends_the_turn(chat: Chat, fake: ScriptedBackend) -> None:
    """A turn that cannot be sent yet ends as stopped as well."""

    def refusing(body: Json) -> Script:
        # Now, and not some time later: the turn would fail after a second.
        chat.stop(body["idempotency_key"])
        return refuse(503)

    fake.script = refusing
    heard = chat.resumed(chat.background()["task_id"])
    assert fake.posts >= 1
    fake.script = script(text("You said: Still there?."), succeed())
    assert_stopped(chat, heard, "")


def test_a_stop_inside_a_tool_call_ends_the_turn(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(
        script(
            thinking("I should look."),
            text("Looking. "),
            tool_call("1", "search", {"q": "x"}),
            gate,
            tool_result("1", "search", "found"),
            text("Found."),
            succeed(),
        )
    )
    with chat.open(params={"mode": "agent-chat"}) as stream:
        while stream.next().get("tool") != "search":
            pass
        chat.stop(stream.task_id)
        heard = stream.rest()
    assert [event["observation"] for event in heard.events if event.get("tool")] == [""]
    thoughts = chat.message(heard.conversation_id)["agent_thoughts"]
    assert [(item["thought"], item["tool"], item["observation"]) for item in thoughts] == [
        ("I should look.", "", ""),
        ("", "search", ""),
    ]
    assert_stopped(chat, heard, "Looking. ")


def test_a_second_stop_changes_nothing(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    with chat.open() as stream:
        stream.until("One ")
        for _ in range(2):
            assert chat.stop(stream.task_id) == {"result": "success"}
        heard = stream.rest()
    assert chat.stop(heard.task_id) == {"result": "success"}
    assert_stopped(chat, heard, "One ")


def test_stopping_an_unknown_turn_is_no_error(chat: Chat) -> None:
    ended = chat.blocking("Hi")
    before = chat.message(ended["conversation_id"])
    for task_id in (str(uuid4()), "nonsense", "%00", ended["task_id"], ended["task_id"].upper()):
        assert chat.stop(task_id) == {"result": "success"}
    assert chat.message(ended["conversation_id"]) == before


def test_a_stranger_cannot_stop_a_turn(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    stranger = Chat(chat.client, "a stranger")
    with chat.open() as stream:
        stream.until("One ")
        assert stranger.stop(stream.task_id) == {"result": "success"}
        gate.open()
        assert stream.rest().answer == "One two"
    assert not fake.cancels


def test_a_task_id_in_capitals_is_accepted(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    with chat.open() as stream:
        stream.until("One ")
        chat.stop(stream.task_id.upper())
        assert_stopped(chat, stream.rest(), "One ")


def test_a_stop_that_races_the_end_gives_one_end(chat: Chat, fake: ScriptedBackend) -> None:
    """The stop or the run may win: there is one end, and the streamed answer is the stored one."""
    conversation_id = None
    for _ in range(15):
        gate = Gate()
        fake.queue(script(text("One "), gate, delta("two "), delta("three"), succeed()))
        with ThreadPoolExecutor(2) as threads, chat.open(conversation_id=conversation_id) as stream:
            stream.until("One ")
            stopping = threads.submit(chat.stop, stream.task_id)
            threads.submit(gate.open)
            heard = stream.rest()
            assert stopping.result(BOUND) == {"result": "success"}
        assert heard.kinds[-1] == "message_end"
        assert heard.kinds.count("message_end") == 1
        assert heard.answer in ("One ", "One two ", "One two three")
        conversation_id = heard.conversation_id
        stored = chat.message(conversation_id)
        assert (stored["answer"], stored["status"]) == (heard.answer, "normal")


@pytest.mark.parametrize("ending", [fail("shutdown"), ask_human("Shall I?")], ids=["a failure", "a question"])
def test_after_a_stop_only_completed_text_replaces_the_stopped_end(
    chat: Chat, fake: ScriptedBackend, gate: Gate, ending: Any
) -> None:
    fake.queue(script(text("One "), gate, ending, cancel="ignore"))
    with chat.open() as stream:
        stream.until("One ")
        chat.stop(stream.task_id)
        gate.open()
        assert_stopped(chat, stream.rest(), "One ")


def test_a_run_that_completed_before_the_stop_stays_completed(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(text("One "), gate, delta("two"), succeed(), cancel="ignore"))
    with chat.open() as stream:
        stream.until("One ")
        chat.stop(stream.task_id)
        gate.open()
        heard = stream.rest()
    chat.blocking("What did I say?", conversation_id=heard.conversation_id)
    assert fake.requests[-1].body["session_snapshot"] is not None, "its snapshot counts, too"
    assert heard.answer == chat.messages(heard.conversation_id)[0]["answer"] == "One two"


def test_a_turn_stops_although_the_backend_does_not_cancel(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    """It may ignore, refuse or swallow the cancel: the turn ends within a bound of five and two seconds."""
    answers: dict[str, Any] = {
        "ignores": "ignore",
        "forgot": 404,
        "over": 409,
        "broken": 500,
        "hangs": "hang",
    }
    fake.script = lambda body: (
        script(text("One "), gate, delta("two"), succeed(), cancel=answers[query_of(body)])
        if query_of(body) in answers
        else script(text("You said: Still there?."), succeed())
    )

    def stopped(query: str) -> tuple[Heard, float]:
        with chat.open(query) as stream:
            stream.until("One ")
            asked = time.monotonic()
            chat.stop(stream.task_id)
            return stream.rest(), time.monotonic() - asked

    with ThreadPoolExecutor(len(answers)) as threads:
        results = dict(zip(answers, threads.map(stopped, answers), strict=True))
    for heard, _ in results.values():
        assert_stopped(chat, heard, "One ")
    assert {query: round(seconds, 1) for query, (_, seconds) in results.items() if seconds > BOUND} == {}
