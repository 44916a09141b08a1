"""Questions to humans in a fleet: asked here, answered there, whoever dies in between, one answer."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from agent_gateway.turns import maintenance
from tests.support.chat import Chat, Heard
from tests.support.fakes.script import Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, adopted, die
from tests.support.gateway_server import BOUND, wait_until
from tests.support.human_input import (
    asked,
    awaiting,
    expire,
    extra,
    read,
    submit,
    submitted,
    token_of,
    told,
)
from tests.support.json_type import Json
from tests.support.rows import never


def answers(chat: Chat, heard: Heard) -> list[Json]:
    """The messages after the question."""
    return chat.messages(heard.conversation_id)[1:]


def test_a_question_is_answered_at_any_process(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    """And the answer is heard everywhere, by those who waited and those who come later."""
    chats = [fleet.chat(fleet.start(), user) for _ in range(3)]
    heard = asked(chats[0], fake)
    assert read(chats[1], token_of(heard)).status_code == 200
    with awaiting(chats[0], heard) as here, awaiting(chats[2], heard) as there:
        turn = submitted(chats[1], token_of(heard))
        streams = [here.rest(), there.rest()]
    assert streams[0].kinds[0] == "human_input_form_filled"
    assert streams[0].kinds[-1] == "message_end"
    assert streams[0].events == streams[1].events
    for chat in chats:
        assert chat.resumed(turn["task_id"]).events == streams[0].events
    assert told(fake)["values"] == {"size": "s"}
    assert fake.posts == 2


def test_a_question_survives_the_process_that_asked(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    process = fleet.process().ready()
    heard = asked(fleet.chat(process, user), fake)
    process.send(signal.SIGKILL)
    process.exited()
    chat = fleet.chat(fleet.start(), user)
    assert chat.resumed(heard.task_id).events == heard.events
    answer = chat.resumed(submitted(chat, token_of(heard))["task_id"])
    assert answer.kinds[0] == "human_input_form_filled"
    assert answer.kinds[-1] == "message_end"


def test_an_answer_survives_the_process_that_accepted_it(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """While it runs: the same run, the same positions, wherever its readers come back."""
    one, two = fleet.start(), fleet.start()
    chats = [fleet.chat(server, user) for server in (one, two)]
    heard = asked(chats[0], fake)
    fake.queue(script(said("So ", "far"), gate, delta(" so good."), succeed()))
    turn = submitted(chats[0], token_of(heard))
    with chats[0].follow(turn["task_id"]) as stream:
        assert [event["event_id"] for event in stream.until("far")] == [1, 2, 3]
    die(one)
    adopted(two, turn["task_id"])
    gate.open()
    rest = chats[1].resumed(turn["task_id"], after=3)
    assert rest.answer == " so good."
    whole = chats[1].resumed(turn["task_id"])
    assert whole.ids[:4] == [1, 2, 3, 4]
    assert whole.after(3) == rest.frames
    assert fake.posts == 2


def test_an_answer_that_was_not_sent_yet_is_sent_by_another(
    fleet: Fleet, fake: ScriptedBackend, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that adopts the turn sends the run the same answer."""
    one = fleet.start()
    chat = fleet.chat(one, user)
    heard = asked(chat, fake)
    with monkeypatch.context() as patch:
        patch.setattr("agent_gateway.runner.TurnRunner.run", never)
        turn = submitted(chat, token_of(heard), size="l", comment="go")
        die(one)
    # Only now is there another: it would drive what it adopts as little.
    answer = fleet.chat(fleet.start(), user).resumed(turn["task_id"])
    assert answer.kinds[0] == "human_input_form_filled"
    assert answer.kinds[-1] == "message_end"
    assert told(fake)["values"] == {"comment": "go", "size": "l"}
    assert fake.posts == 2


@pytest.mark.parametrize("rival", ["submit", "message", "expiry"])
def test_one_of_many_concurrent_answers_wins(
    fleet: Fleet, fake: ScriptedBackend, user: str, rival: str
) -> None:
    """A second submission, a message, or the expiry: one turn carries one answer, the loser is told."""
    chats = [fleet.chat(fleet.start(), user) for _ in range(2)]
    for _ in range(4):
        race(fleet, fake, chats, rival)


def race(fleet: Fleet, fake: ScriptedBackend, chats: list[Chat], rival: str) -> None:
    heard = asked(chats[0], fake)
    token, posts = token_of(heard), fake.posts
    barrier = threading.Barrier(2)

    def first() -> str:
        barrier.wait(BOUND)
        return outcome(submit(chats[0], token, size="s"))

    def second() -> str:
        barrier.wait(BOUND)
        match rival:
            case "submit":
                return outcome(submit(chats[1], token, "reject", size="l"))
            case "message":
                chats[1].background("Yes", conversation_id=heard.conversation_id)
            case _:
                expire(fleet.database_url, heard)
        return ""

    with ThreadPoolExecutor(2) as executor:
        codes = [executor.submit(call) for call in (first, second)]
        lost = [code.result() for code in codes if code.result()]
    assert lost in ([], ["human_input_form_submitted"], ["human_input_form_expired"])
    assert lost or rival != "submit"
    with awaiting(chats[1], heard) as stream:
        answer = stream.rest()
    timed_out = extra(chats[0], heard)["state"] == "timeout"
    assert timed_out == (lost == ["human_input_form_expired"])
    assert answer.kinds[0] == f"human_input_form_{'timeout' if timed_out else 'filled'}"
    # A message that lost the race is a message like any other.
    turns = 2 if rival == "message" and not lost else 1
    wait_until(lambda: fake.posts == posts + turns)
    told_of = [received.body.get("deferred_tool_results") for received in fake.requests[posts:]]
    assert [bool(results) for results in told_of] == [True, False][:turns]
    wait_until(lambda: all(message["answer"] for message in answers(chats[0], heard)))
    assert len(answers(chats[0], heard)) == turns


def outcome(response: httpx.Response) -> str:
    """The code of a refusal; empty for what was taken."""
    return str(response.json().get("code", ""))


def test_a_question_expires_once_with_many_processes(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    chats = [fleet.chat(fleet.start(), user) for _ in range(3)]
    heard = [asked(chat, fake) for chat in chats for _ in range(3)]
    for question in heard:
        expire(fleet.database_url, question)
    for question in heard:
        with awaiting(chats[0], question) as stream:
            answer = stream.rest()
        assert answer.kinds[0] == "human_input_form_timeout"
        assert answer.kinds[-1] == "message_end"
        assert len(answers(chats[0], question)) == 1
    assert fake.posts == 2 * len(heard)


def test_a_question_expires_although_no_process_ran_at_that_time(
    fleet: Fleet, fake: ScriptedBackend, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time came while every process was down; until a process notices, nobody can submit it."""
    with monkeypatch.context() as patch:
        patch.setattr(maintenance.Maintenance, "expire_forms", never)
        first = fleet.start()
        chat = fleet.chat(first, user)
        heard = asked(chat, fake)
        expire(fleet.database_url, heard, -60)
        response = submit(chat, token_of(heard), size="s")
        assert (response.status_code, response.json()["code"]) == (412, "human_input_form_expired")
        first.stop()
    chat = fleet.chat(fleet.start(), user)
    with awaiting(chat, heard) as stream:
        assert stream.rest().kinds[0] == "human_input_form_timeout"


def test_a_waiting_reader_does_not_delay_shutdown(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    server = fleet.start()
    heard = asked(fleet.chat(server, user), fake)
    with awaiting(fleet.chat(server, user), heard) as stream:
        stream.block()
        server.begin_stop(0)
        assert stream.rest().events == []
    server.stop()
