"""Suggested questions: made once, when they are first asked for, by a run after the turn."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from agent_gateway.limits import RequestLimits
from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, fail, final_output, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.fleet import Fleet
from tests.support.gateway_server import BOUND, GatewayServer
from tests.support.outbox import SUGGEST, all_done, helpful_app, outbox_entries, told_apart
from tests.support.rows import add_app, rows_of

QUESTIONS = ["How much is it?", "When does it open?"]


@pytest.fixture
def url(server: GatewayServer) -> str:
    return server.settings.resolved_database_url()


@pytest.fixture
def helpful(server: GatewayServer, user: str, url: str) -> Iterator[Chat]:
    """This test's user at an app that suggests questions."""
    add_app(url, key := f"app-helpful-{user}", helpful_app(naming=None))
    with server.client(key) as client:
        yield Chat(client, user)


def asked(chat: Chat, message_id: str, **params: str) -> httpx.Response:
    return chat.client.get(f"/messages/{message_id}/suggested", params={"user": chat.user, **params})


def suggested(chat: Chat, message_id: str) -> list[str]:
    response = asked(chat, message_id)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body.pop("result") == "success"
    questions: list[str] = body.pop("data")
    assert body == {}
    return questions


def runs(fake: ScriptedBackend) -> int:
    return sum(query_of(request.body).startswith(SUGGEST) for request in fake.requests)


def test_suggestions_are_made_once_when_first_requested(
    helpful: Chat, fake: ScriptedBackend, url: str
) -> None:
    fake.script = told_apart(suggest=script(final_output({}), succeed(output={"questions": QUESTIONS})))
    answered = helpful.blocking("A museum?")
    assert (outbox_entries(url), fake.posts) == ([], 1), "nobody has asked yet"
    assert suggested(helpful, answered["message_id"]) == QUESTIONS
    assert suggested(helpful, answered["message_id"]) == QUESTIONS
    assert runs(fake) == 1
    body = fake.requests[-1].body
    assert query_of(body) == f"{SUGGEST}A museum? => You said: A museum?."
    assert "session_snapshot" not in body
    snapshot = rows_of(url, answered["task_id"]).snapshot
    assert snapshot is not None
    assert SUGGEST not in snapshot.data


def test_concurrent_requests_share_one_suggestion_run(
    helpful: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.script = told_apart(suggest=script(gate, text("- One?\n- Two?"), succeed()))
    message_id = helpful.blocking()["message_id"]
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(suggested, helpful, message_id) for _ in range(3)]
        fake.wait_until(lambda: runs(fake) == 1)
        gate.open()
        assert [one.result(BOUND) for one in waiting] == [["One?", "Two?"]] * 3
    assert runs(fake) == 1


def test_a_failed_suggestion_run_gives_an_empty_list(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    fake.script = told_apart(suggest=script(fail(error="sk-secret")))
    message_id = helpful.blocking()["message_id"]
    assert suggested(helpful, message_id) == []
    all_done(url)
    tries = runs(fake)
    assert tries == 3
    assert suggested(helpful, message_id) == []
    assert runs(fake) == tries


def test_a_failed_or_stopped_turn_has_no_suggestions(
    helpful: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(text("Half"), fail()), script(text("Half "), gate, succeed()))
    failed = helpful.streaming("Fails")
    with helpful.open("Runs") as stream:
        running = stream.until("Half ")[-1]
        assert suggested(helpful, running["message_id"]) == []
        helpful.stop(stream.task_id)
        stream.rest()
    for message_id in (failed.last["message_id"], running["message_id"]):
        assert suggested(helpful, message_id) == []
    assert runs(fake) == 0


def test_suggestions_of_an_unknown_message_are_not_found(helpful: Chat, chat: Chat) -> None:
    message_id = helpful.blocking()["message_id"]
    unknown = asked(helpful, str(uuid4()))
    refused(unknown, 404, "not_found")
    for other in (asked(helpful, "abc"), asked(helpful, message_id, user="somebody else")):
        assert (other.status_code, other.content) == (404, unknown.content)
    with httpx.Client(base_url=chat.client.base_url, headers=helpful.client.headers) as nobody:
        assert nobody.get(f"/messages/{message_id}/suggested").content == unknown.content


def test_suggestions_that_are_switched_off_are_refused(chat: Chat, helpful: Chat) -> None:
    message_id = chat.blocking()["message_id"]
    for any_id in (message_id, str(uuid4()), "abc"):
        refused(asked(chat, any_id), 400, "bad_request")
    for one, enabled in ((chat, False), (helpful, True)):
        told = one.client.get("/parameters").json()["suggested_questions_after_answer"]
        assert told == {"enabled": enabled}


def test_a_slow_suggestion_run_does_not_hold_the_caller(
    server: GatewayServer, helpful: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.script = told_apart(suggest=script(gate, text("Late?"), succeed()))
    message_id = helpful.blocking()["message_id"]
    with server.request_limits(RequestLimits(suggestions_seconds=0.3)):
        assert suggested(helpful, message_id) == []
    gate.open()
    assert suggested(helpful, message_id) == ["Late?"]
    assert runs(fake) == 1


def test_suggestions_made_by_another_process_are_returned(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    one, two = fleet.start(), fleet.start()
    add_app(fleet.database_url, key := "app-helpful", helpful_app(naming=None))
    chat, other = fleet.chat(one, user, key), fleet.chat(two, user, key)
    fake.script = told_apart(suggest=script(gate, text("One?"), succeed()))
    message_id = chat.blocking()["message_id"]
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(suggested, chat, message_id)]
        fake.wait_until(lambda: runs(fake) == 1)
        waiting.append(threads.submit(suggested, other, message_id))
        gate.open()
        assert [one.result(BOUND) for one in waiting] == [["One?"]] * 2
    assert runs(fake) == 1
