"""Names of conversations: given, made by the app, or the cut of the first query."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, Step, echo, fail, final_output, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.outbox import NAME, all_done, helpful_app, outbox_entries, told_apart
from tests.support.rows import add_app, rows_of


@pytest.fixture
def url(server: GatewayServer) -> str:
    return server.settings.resolved_database_url()


@pytest.fixture
def helpful(server: GatewayServer, user: str, url: str) -> Iterator[Chat]:
    """This test's user at an app that makes names."""
    add_app(url, key := f"app-helpful-{user}", helpful_app())
    with server.client(key) as client:
        yield Chat(client, user)


def name_of(chat: Chat) -> str:
    [item] = chat.conversations()["data"]
    return str(item["name"])


def name_requests(fake: ScriptedBackend) -> list[Json]:
    return [request.body for request in fake.requests if query_of(request.body).startswith(NAME)]


def rename(chat: Chat, conversation_id: str, **body: object) -> Json:
    given = {"user": chat.user, **body}
    response = chat.client.post(f"/conversations/{conversation_id}/name", json=given)
    assert response.status_code == 200, response.text
    item: Json = response.json()
    return item


def test_a_conversation_is_named_by_the_app_once(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    fake.script = told_apart(name=script(text("A trip", " to Rome"), succeed()))
    answered = helpful.blocking("Where to?")
    all_done(url)
    assert name_of(helpful) == "A trip to Rome"
    before = rows_of(url, answered["task_id"]).snapshot
    helpful.blocking("And then?", conversation_id=answered["conversation_id"])
    all_done(url)
    [asked] = name_requests(fake)
    assert query_of(asked) == f"{NAME}Where to? => You said: Where to?."
    assert asked["on_exit"]["default"] == "delete"
    assert "session_snapshot" not in asked
    assert before is not None
    assert before.seq == 1, "the conversation's session did not move"
    assert name_of(helpful) == "A trip to Rome"


def test_a_name_can_be_structured_output(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    named = {"title": '"Rome\u0000 in\n spring"', "confidence": 0.9}
    fake.script = told_apart(name=script(final_output(named), succeed(output=named)))
    helpful.blocking("Where to?")
    all_done(url)
    assert name_of(helpful) == "Rome\ufffd in spring"


def test_a_slow_name_delays_nothing(helpful: Chat, fake: ScriptedBackend, gate: Gate, url: str) -> None:
    fake.script = told_apart(name=script(gate, text("Late"), succeed()))
    heard = helpful.streaming("Where to?")
    assert heard.kinds[-1] == "message_end"
    fake.wait_until(lambda: len(name_requests(fake)) == 1)
    assert name_of(helpful) == "Where to?"
    again = helpful.blocking("And then?", conversation_id=heard.conversation_id)
    assert again["answer"] == "You said: And then?."
    gate.open()
    all_done(url)
    assert name_of(helpful) == "Late"
    assert len(name_requests(fake)) == 1


def test_a_name_given_by_the_user_meanwhile_is_kept(
    helpful: Chat, fake: ScriptedBackend, gate: Gate, url: str
) -> None:
    fake.script = told_apart(name=script(gate, text("Late"), succeed()))
    answered = helpful.blocking("Where to?")
    fake.wait_until(lambda: len(name_requests(fake)) == 1)
    rename(helpful, answered["conversation_id"], name="Mine")
    gate.open()
    all_done(url)
    assert name_of(helpful) == "Mine"


def test_a_failed_naming_run_leaves_the_default_name(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    fake.script = told_apart(name=script(fail(error="sk-secret")))
    answered = helpful.blocking("Where to?")
    all_done(url)
    assert len(name_requests(fake)) == 3
    helpful.blocking("And then?", conversation_id=answered["conversation_id"])
    assert outbox_entries(url) == []
    assert name_of(helpful) == "Where to?"


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (fail("QuotaExceededError", "sk-secret"), "the run did not succeed: QuotaExceededError"),
        (
            fail(error="Missing required 'llm' layer."),
            "the run did not succeed: its composition has no model",
        ),
    ],
)
def test_the_log_says_why_there_is_no_name(
    helpful: Chat,
    fake: ScriptedBackend,
    url: str,
    caplog: pytest.LogCaptureFixture,
    ending: Step,
    said: str,
) -> None:
    """A composition without its model is the operator's mistake here, and says nothing of clean-up runs."""
    fake.script = told_apart(name=script(ending))
    conversation_id = helpful.blocking("Where to?")["conversation_id"]
    all_done(url)
    [line] = [line for line in caplog.messages if "given up" in line]
    assert line.endswith(f"RunNotSucceeded: {said}")
    assert "sk-secret" not in caplog.text
    fake.script = echo
    posts = fake.posts
    helpful.client.request("DELETE", f"/conversations/{conversation_id}", json={"user": helpful.user})
    all_done(url)
    assert fake.posts == posts + 1, "the session is closed all the same"


def test_a_failed_turn_does_not_start_a_naming_run(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    fake.script = told_apart(name=script(text("Second"), succeed()))
    fake.queue(script(fail()))
    heard = helpful.post("Fails")
    refused(heard, 500, "internal_server_error")
    [item] = helpful.conversations()["data"]
    assert (item["name"], outbox_entries(url)) == ("Fails", [])
    helpful.blocking("Works", conversation_id=item["id"])
    all_done(url)
    assert name_of(helpful) == "Second"


def test_a_client_can_switch_naming_off(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    answered = helpful.blocking("Where to?", auto_generate_name=False)
    helpful.blocking("And then?", conversation_id=answered["conversation_id"], auto_generate_name=True)
    assert outbox_entries(url) == []
    assert (name_of(helpful), fake.posts) == ("Where to?", 2)


def test_a_conversation_can_be_renamed(chat: Chat) -> None:
    conversation_id = chat.blocking("First")["conversation_id"]
    item = rename(chat, conversation_id, name="  My\n\x00 name ")
    assert item["name"] == "My \ufffd name"
    [listed] = chat.conversations()["data"]
    assert item == listed
    assert rename(chat, conversation_id, name="n" * 300, auto_generate=False)["name"] == "n" * 254 + "…"
    assert rename(chat, conversation_id, name="x", auto_generate=None)["name"] == "x"


def test_a_wrong_rename_is_refused(chat: Chat) -> None:
    conversation_id = chat.blocking("First")["conversation_id"]
    path = f"/conversations/{conversation_id}/name"
    bodies: list[Json] = [{}, {"name": None}, {"name": " "}, {"auto_generate": False}, {"name": ""}]
    for body in bodies:
        told = refused(chat.client.post(path, json={"user": chat.user, **body}), 400, "invalid_param")
        assert "name" in told["message"]
    assert "user" in refused(chat.client.post(path, json={"name": "x"}), 400, "invalid_param")["message"]
    given = {"name": "x", "user": "somebody else"}
    strangers = chat.client.post(path, json=given)
    unknown = chat.client.post(f"/conversations/{uuid4()}/name", json=given)
    malformed = chat.client.post("/conversations/abc/name", json=given)
    assert strangers.content == unknown.content == malformed.content
    refused(strangers, 404, "not_found")
    generated = chat.client.post(path, json={"auto_generate": True, "user": "somebody else"})
    assert generated.content == unknown.content
    assert name_of(chat) == "First"


def test_auto_generate_creates_a_name_at_once(helpful: Chat, fake: ScriptedBackend, url: str) -> None:
    answered = helpful.blocking("Where to?", auto_generate_name=False)
    fake.script = told_apart(name=script(text("Rome"), succeed()))
    conversation_id = answered["conversation_id"]
    assert rename(helpful, conversation_id, name="", auto_generate=True)["name"] == "Rome"
    assert name_of(helpful) == "Rome"
    fake.script = told_apart(name=script(fail()))
    assert rename(helpful, conversation_id, auto_generate=True)["name"] == "Where to?"


def test_auto_generate_without_naming_cuts_the_first_query(chat: Chat, fake: ScriptedBackend) -> None:
    conversation_id = chat.blocking("word " * 40)["conversation_id"]
    rename(chat, conversation_id, name="Mine")
    made = rename(chat, conversation_id, auto_generate=True)["name"]
    assert made.startswith("word word")
    assert made.endswith("…")
    assert len(made) <= 64
    assert fake.posts == 1
