"""Deleting a conversation: gone at once for everybody, its turns stopped, its session closed (R16)."""

import json
import logging
import signal
from uuid import uuid4

import httpx
import pytest

from agent_gateway.domain.files import artifact_id
from agent_gateway.store.apps import AppStore
from tests.support.chat import Chat, refused
from tests.support.fakes.script import (
    Gate,
    Script,
    ask_human,
    cancelled,
    delta,
    file,
    recorded,
    refuse,
    script,
    succeed,
    text,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.files import PNG, local, preview, upload
from tests.support.fleet import Fleet
from tests.support.gateway_server import DELETED_IS_GONE, GatewayServer, StartGateway, wait_until
from tests.support.json_type import Json
from tests.support.outbox import (
    all_done,
    closes,
    conversation_row,
    due_now,
    outbox_entries,
    snapshot_row,
)
from tests.support.paths import RECORDED
from tests.support.rows import add_app, apply_app, make_key, rows_of, with_database


def deleted(chat: Chat, conversation_id: str) -> httpx.Response:
    """DELETE as most clients do it, with a body."""
    response = chat.client.request("DELETE", f"/conversations/{conversation_id}", json={"user": chat.user})
    assert (response.status_code, response.content) == (204, b""), response.text
    return response


def everything_about(chat: Chat, gone: str) -> list[Json]:
    """What every route answers about a conversation that does not exist."""
    path = f"/conversations/{gone}"
    answers = [
        chat.client.get("/messages", params={"conversation_id": gone, "user": chat.user}),
        chat.post("More", conversation_id=gone),
        chat.client.post(f"{path}/name", json={"user": chat.user, "name": "N"}),
        chat.client.post(f"{path}/name", json={"user": chat.user, "auto_generate": True}),
        chat.client.request("DELETE", path, json={"user": chat.user}),
        chat.client.get("/conversations", params={"user": chat.user, "last_id": gone}),
    ]
    return [refused(answer, 404, "not_found") for answer in answers]


@pytest.fixture
def url(server: GatewayServer) -> str:
    return server.settings.resolved_database_url()


def test_a_deleted_conversation_is_gone_everywhere(chat: Chat, url: str) -> None:
    answered = chat.blocking("First")
    kept = chat.blocking("Kept")
    conversation_id, task_id = answered["conversation_id"], answered["task_id"]
    deleted(chat, conversation_id)
    assert [item["id"] for item in chat.conversations()["data"]] == [kept["conversation_id"]]
    unknown = str(uuid4())
    assert everything_about(chat, conversation_id) == everything_about(chat, unknown)
    # Its log is still in this process's memory.
    assert chat.events(task_id).content == chat.events(unknown).content
    refused(chat.events(task_id), 404, "not_found")
    chat.stop(task_id)
    all_done(url)
    assert chat.blocking("Still", conversation_id=kept["conversation_id"])["answer"] == "You said: Still."


def no_file(chat: Chat, file_id: str, url: str) -> None:
    """A file is nowhere: not under its old URL, not as a preview, and no message may bring it again."""
    unknown = str(uuid4())
    refused(chat.client.get(url, headers={"Authorization": ""}), 404, "file_not_found")
    assert preview(chat, file_id).content == preview(chat, unknown).content
    assert refused(chat.post("Again", files=[local(file_id)]), 404, "file_not_found") == refused(
        chat.post("Again", files=[local(unknown)]), 404, "file_not_found"
    )


def test_the_files_of_a_deleted_conversation_are_gone_at_once(chat: Chat, fake: ScriptedBackend) -> None:
    """What the user sent and what the agent made; what another conversation has, too, stays."""
    sent, shared, unused = upload(chat), upload(chat, "shared.png"), upload(chat, "unused.png")
    fake.queue(script(text("Here."), file(PNG), succeed()))
    deleted_one = chat.blocking(files=[local(sent["id"]), local(shared["id"])])["conversation_id"]
    other = chat.blocking(files=[local(shared["id"])])["conversation_id"]
    items = chat.message(deleted_one)["message_files"]
    [made] = [item for item in items if item["belongs_to"] == "assistant"]
    urls = {item["id"]: item["url"] for item in items}
    deleted(chat, deleted_one)
    no_file(chat, sent["id"], urls[sent["id"]])
    no_file(chat, made["id"], made["url"])
    for kept in (shared, unused):
        assert preview(chat, kept["id"]).content == PNG
        chat.blocking(files=[local(kept["id"])], conversation_id=other)
    deleted(chat, other)
    no_file(chat, shared["id"], urls[shared["id"]])


def test_files_of_a_turn_that_runs_on_are_gone_with_its_conversation(
    chat: Chat, fake: ScriptedBackend, gate: Gate, url: str
) -> None:
    """One that the agent made before the delete, and that is stored after it."""
    sent = upload(chat)
    fake.queue(script(text("One "), file(PNG), gate, succeed()))
    with chat.open("Draw", files=[local(sent["id"])]) as stream:
        event = stream.next()
        sent_url = chat.message(event["conversation_id"])["message_files"][0]["url"]
        deleted(chat, event["conversation_id"])
        no_file(chat, sent["id"], sent_url)
        gate.open()
        stream.rest()
    assert rows_of(url, event["task_id"]).turn.outcome is not None
    made_id = artifact_id(event["message_id"], 1)
    assert preview(chat, made_id).status_code == 404


def test_feedback_on_a_deleted_conversation_is_not_listed(server: GatewayServer, user: str) -> None:
    """From what the app reads of all its users."""
    add_app(server.settings.resolved_database_url(), key := f"app-rated-{user}")
    with server.client(key) as client:
        rated = Chat(client, user)
        gone, kept = rated.blocking(), rated.blocking()
        for answered, content in ((gone, "my address is"), (kept, "fine")):
            body = {"user": user, "rating": "like", "content": content}
            client.post(f"/messages/{answered['message_id']}/feedbacks", json=body).raise_for_status()
        deleted(rated, gone["conversation_id"])
        assert [item["content"] for item in client.get("/app/feedbacks").json()["data"]] == ["fine"]
        assert client.get("/app/feedbacks", params={"limit": 1}).json()["data"] != []


def test_file_urls_of_a_deleted_app_answer_not_found(server: GatewayServer, user: str) -> None:
    """They need no key, so that the end of all keys does not end them."""
    url = server.settings.resolved_database_url()
    app_id = apply_app(url, f"gone-{user}").app_id
    with server.client(make_key(url, app_id)[1]) as client:
        chat = Chat(client, user)
        sent = upload(chat)
        begun = chat.background(files=[local(sent["id"])])
        file_url = chat.message(begun["conversation_id"])["message_files"][0]["url"]
        assert client.get(file_url).status_code == 200
        with_database(url, lambda database: AppStore(database).delete(app_id))
        refused(client.get(file_url), 404, "file_not_found")


def test_the_session_of_a_question_is_closed(chat: Chat, fake: ScriptedBackend, url: str) -> None:
    """The only one there is: the conversation has none from before it."""
    fake.queue(script(ask_human("Shall I?")))
    conversation_id = chat.blocking()["conversation_id"]
    token = chat.messages(conversation_id)[0]["extra_contents"][0]["form_definition"]["form_token"]
    deleted(chat, conversation_id)
    all_done(url)
    [closing] = [request.body for request in fake.requests if request.body["on_exit"]["default"] == "delete"]
    assert closing["session_snapshot"] is not None
    assert snapshot_row(url, conversation_id) is None
    refused(chat.client.get(f"/form/human_input/{token}"), 404, "not_found")


def test_only_its_user_can_delete_a_conversation(chat: Chat, url: str) -> None:
    conversation_id = chat.blocking()["conversation_id"]
    path = f"/conversations/{conversation_id}"
    strangers = chat.client.request("DELETE", path, json={"user": "somebody else"})
    unknown = chat.client.delete(f"/conversations/{uuid4()}", params={"user": chat.user})
    malformed = chat.client.delete("/conversations/abc", params={"user": chat.user})
    assert strangers.content == unknown.content == malformed.content
    refused(strangers, 404, "not_found")
    for body in (b"", b"{}", b'{"user": null}'):
        assert (
            "user"
            in refused(chat.client.request("DELETE", path, content=body), 400, "invalid_param")["message"]
        )
    refused(chat.client.request("DELETE", path, json={"user": " "}), 400, "invalid_param")
    assert conversation_row(url, conversation_id).deleted_at is None
    assert chat.client.delete(path, params={"user": chat.user}).status_code == 204
    assert chat.client.delete(path, params={"user": chat.user}).status_code == 404
    all_done(url)


def test_the_session_is_closed_by_a_run_without_a_model(chat: Chat, fake: ScriptedBackend, url: str) -> None:
    conversation_id = chat.blocking("First")["conversation_id"]
    chat.blocking("Second", conversation_id=conversation_id)
    before = snapshot_row(url, conversation_id)
    assert before is not None
    fake.queue(script(succeed(output=None)))
    deleted(chat, conversation_id)
    all_done(url)
    assert snapshot_row(url, conversation_id) is None
    assert fake.posts == 3
    turn, closing = fake.requests[1].body, fake.requests[2].body
    assert closing["on_exit"] == {"default": "delete", "layers": {}}
    left = [layer for layer in turn["composition"]["layers"] if layer["name"] != "llm"]
    assert len(left) == len(turn["composition"]["layers"]) - 1
    assert closing["composition"]["layers"] == left
    held = [layer for layer in json.loads(before.data)["layers"] if layer["name"] != "llm"]
    assert closing["session_snapshot"]["layers"] == held


@pytest.mark.parametrize("answer", ["no_clean_up.sse", "no_clean_up_schema2.sse"])
def test_a_backend_without_clean_up_runs_is_asked_once(
    start_gateway: StartGateway,
    fake: ScriptedBackend,
    database_url: str,
    user: str,
    caplog: pytest.LogCaptureFixture,
    answer: str,
) -> None:
    """It keeps no session: the first such answer stands for all, and is no error."""
    caplog.set_level(logging.INFO, "agent_gateway.turns.auxiliary_runs")
    with start_gateway().client() as client:
        chat = Chat(client, user)
        conversations = [chat.blocking()["conversation_id"] for _ in range(3)]
        fake.script = script(recorded(RECORDED / answer), started=False)
        for conversation_id in conversations:
            deleted(chat, conversation_id)
            all_done(database_url)
            assert snapshot_row(database_url, conversation_id) is None
    assert fake.posts == 4
    told = [record for record in caplog.records if record.name == "agent_gateway.turns.auxiliary_runs"]
    assert [record for record in told if record.levelno >= logging.WARNING] == []
    assert len([record for record in told if "clean-up" in record.getMessage()]) == 1


def test_deleting_stops_the_running_turn_before_the_session_is_closed(
    chat: Chat, fake: ScriptedBackend, gate: Gate, url: str
) -> None:
    """The turn is stopped, its readers get their end, and only then its session is closed."""
    conversation_id = chat.blocking("First")["conversation_id"]
    ends_at_close: list[str | None] = []

    def closing(body: Json) -> Script:
        assert closes(body)
        ends_at_close.append(rows_of(url, task_id).turn.outcome)
        return script(succeed(output=None))

    fake.queue(script(text("One ", "two "), gate, delta("three"), succeed()), closing)
    with chat.open("Second", conversation_id=conversation_id) as stream:
        stream.until("two ")
        task_id = stream.task_id
        deleted(chat, conversation_id)
        refused(chat.events(task_id), 404, "not_found")
        heard = stream.rest()
    assert (heard.answer, heard.kinds[-1]) == ("One two ", "message_end")
    assert [cancel.run_id for cancel in fake.cancels] == [rows_of(url, task_id).turn.run_id]
    all_done(url)
    assert ends_at_close == ["stopped"]
    assert snapshot_row(url, conversation_id) is None


def test_the_snapshot_of_the_stopped_turn_is_the_one_that_is_closed(
    chat: Chat, fake: ScriptedBackend, gate: Gate, url: str
) -> None:
    """The very first turn: there is a session only because its end brings one, after the delete."""
    layers = [
        {"name": name, "lifecycle_state": "suspended", "runtime_state": {}}
        for name in ("agent_soul_prompt", "agent_app_user_prompt", "execution_context", "history", "llm")
    ]
    late = {"schema_version": 1, "layers": layers}
    fake.queue(script(text("One "), gate, cancelled(session_snapshot=late), cancel="ignore"))
    with chat.open() as stream:
        conversation_id = stream.until("One ")[-1]["conversation_id"]
        deleted(chat, conversation_id)
        gate.open()
        assert stream.rest().kinds[-1] == "message_end"
    all_done(url)
    assert closes(fake.requests[-1].body)
    assert snapshot_row(url, conversation_id) is None


def test_deleting_ends_the_queued_turns(chat: Chat, fake: ScriptedBackend, gate: Gate, url: str) -> None:
    conversation_id = chat.blocking("First")["conversation_id"]
    fake.queue(script(text("Half"), gate, succeed()))
    active = chat.background("Second", conversation_id=conversation_id)
    fake.wait_until(lambda: fake.open_streams >= 1 and fake.posts == 2)
    waiting = [chat.background(f"Queued {n}", conversation_id=conversation_id) for n in range(2)]
    with chat.follow(active["task_id"]) as first, chat.follow(waiting[0]["task_id"]) as second:
        deleted(chat, conversation_id)
        assert [first.rest().kinds[-1], second.rest().kinds[-1]] == ["message_end"] * 2
    for turn in (active, *waiting):
        assert rows_of(url, turn["task_id"]).turn.outcome == "stopped"
    all_done(url)
    asked = [request.body["on_exit"]["default"] for request in fake.requests]
    assert asked == ["suspend", "suspend", "delete"], "none of the queued ones ran"


def test_without_a_session_nothing_is_closed(chat: Chat, fake: ScriptedBackend, url: str) -> None:
    fake.queue(refuse(422))
    refused(chat.post("Fails"), 502, "backend_refused")
    [item] = chat.conversations()["data"]
    deleted(chat, item["id"])
    assert outbox_entries(url) == []
    assert fake.posts == 1


def test_the_session_is_closed_once_the_backend_is_back(
    start_gateway: StartGateway, database_url: str, user: str
) -> None:
    with ScriptedBackend() as backend:
        server = start_gateway(backend_url=backend.url, backend_reconnect_seconds=0.2)
        with server.client() as client:
            chat = Chat(client, user)
            conversation_id = chat.blocking()["conversation_id"]
            backend.stop()
            deleted(chat, conversation_id)
            wait_until(lambda: outbox_entries(database_url)[0].tries >= 2)
            assert snapshot_row(database_url, conversation_id) is not None
            backend.start()
            all_done(database_url)
    assert closes(backend.requests[-1].body)
    assert snapshot_row(database_url, conversation_id) is None


def test_the_next_process_does_the_cleanup_that_one_left_undone(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    """A clean stop in the middle of the clean-up run gives the entry back."""
    server = start_gateway()
    with server.client() as client:
        chat = Chat(client, user)
        conversation_id = chat.blocking()["conversation_id"]
        fake.queue(script(gate, succeed(output=None)))
        deleted(chat, conversation_id)
        fake.wait_until(lambda: fake.posts == 2)
    server.stop()
    assert len(outbox_entries(database_url)) == 1
    start_gateway()
    all_done(database_url)
    assert fake.posts == 3
    assert snapshot_row(database_url, conversation_id) is None


@pytest.mark.slow
def test_a_process_killed_after_the_delete_leaves_the_cleanup_to_another(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    victim = fleet.process().ready()
    chat = fleet.chat(victim, user)
    conversation_id = chat.blocking()["conversation_id"]
    fake.queue(script(gate, succeed(output=None)))
    deleted(chat, conversation_id)
    fake.wait_until(lambda: fake.posts == 2)
    victim.send(signal.SIGKILL)
    victim.exited()
    [left] = outbox_entries(fleet.database_url)
    assert (left.kind, left.tries) == ("close_session", 1)
    other = fleet.start()
    due_now(fleet.database_url)
    all_done(fleet.database_url)
    assert fake.posts == 3
    assert snapshot_row(fleet.database_url, conversation_id) is None
    refused(fleet.chat(other, user).post("More", conversation_id=conversation_id), 404, "not_found")


def test_a_delete_at_another_process_stops_the_turn_and_closes_the_session_once(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Deleted there, running here: hidden here at once, stopped, and closed once."""
    fleet.limits = DELETED_IS_GONE
    here, there = fleet.start(), fleet.start()
    chat, elsewhere = fleet.chat(here, user), fleet.chat(there, user)
    conversation_id = chat.blocking("First")["conversation_id"]
    fake.queue(script(text("Half "), gate, succeed()))
    with chat.open("Second", conversation_id=conversation_id) as stream:
        stream.until("Half ")
        deleted(elsewhere, conversation_id)
        refused(chat.events(stream.task_id), 404, "not_found")
        assert stream.rest().kinds[-1] == "message_end"
        refused(chat.events(stream.task_id), 404, "not_found")
    all_done(fleet.database_url)
    assert [closes(request.body) for request in fake.requests] == [False, False, True]
