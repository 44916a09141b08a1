"""Apps and keys from the command line, while a gateway serves them."""

from pathlib import Path

import httpx
import pytest

from agent_gateway.store.apps import AppStore
from tests.support.chat import Chat, refused
from tests.support.command import Operator
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import NO_KEY_IS_REMEMBERED, StartGateway, wait_until
from tests.support.rows import apply_app, make_key, rows_of, with_database

APP = """
name: City guide
description: |
  Knows cities.
    All of them.
mode: agent-chat
user_input_form:
  - select: {label: Tone, variable: tone, options: [friendly, brief]}
composition:
  layers:
    - name: prompt
      type: plain.prompt
      config: {prefix: "Be ${inputs.tone}. ${env:SECRET_OF_THE_GUIDE}", user: "${query}"}
    - {name: history, type: pydantic_ai.history, config: null}
"""


@pytest.fixture
def operator(tmp_path: Path, database_url: str) -> Operator:
    return Operator(tmp_path, database_url)


@pytest.mark.slow
def test_an_app_is_applied_used_changed_and_deleted(
    start_gateway: StartGateway,
    operator: Operator,
    fake: ScriptedBackend,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_GUIDE", "Psst.")
    server = start_gateway(limits=NO_KEY_IS_REMEMBERED)
    file = operator.write("city-guide.yaml", APP)
    assert operator.run("app", "apply", file).startswith("city-guide: created, version 1")
    made = operator.try_("key", "create", "city-guide", "--label", "for the site", "--expires", "30")
    key = made.stdout.strip()
    assert key not in made.stderr
    with server.client(key) as client:
        assert client.get("/info").json()["name"] == "City guide"
        assert Chat(client, user).blocking(inputs={"tone": "brief"})["answer"] == "You said: Hello."
        [prompt, _] = fake.requests[0].body["composition"]["layers"]
        assert prompt["config"]["prefix"] == "Be brief. Psst."

        # What changed is served at once.
        exported = operator.run("app", "export", "city-guide")
        assert "Psst." not in exported
        operator.write(file, exported.replace("City guide", "Town guide"))
        assert operator.run("app", "apply", file) == "city-guide: changed, version 2\n"
        assert client.get("/info").json()["name"] == "Town guide"

        key_id = made.stderr.split()[1]
        assert operator.run("key", "revoke", key_id) == f"{key_id}: revoked\n"
        refused(client.get("/info"), 401, "unauthorized")


def test_a_deleted_app_is_gone_and_its_turns_end(
    start_gateway: StartGateway,
    operator: Operator,
    fake: ScriptedBackend,
    gate: Gate,
    database_url: str,
    user: str,
) -> None:
    server = start_gateway(limits=NO_KEY_IS_REMEMBERED, lease_seconds=1.5)
    app = apply_app(database_url, "city-guide")
    _, key = make_key(database_url, app.app_id)
    fake.queue(script(said("Yes"), gate, succeed()))
    with server.client(key) as client:
        chat = Chat(client, user)
        with chat.open() as stream:
            conversation = stream.next()["conversation_id"]
            queued = chat.background("Two", conversation_id=conversation)
            assert (
                operator.run("app", "delete", "city-guide", "--yes")
                == "city-guide: deleted, 2 turns stopped\n"
            )
            refused(client.get("/info"), 401, "unauthorized")
            assert stream.rest().last["event"] == "message_end"
        wait_until(lambda: rows_of(database_url, queued["task_id"]).turn.outcome == "stopped")
        followed = httpx.get(f"{server.url}{queued['events_url']}", trust_env=False)
        assert followed.status_code in (200, 204), "a ticket outlives the app"
    assert fake.posts == 1
    assert apply_app(database_url, "city-guide").app_id != app.app_id, "the slug is free, for another app"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_new_app_with_a_deleted_apps_name_starts_empty(
    start_gateway: StartGateway, database_url: str, user: str
) -> None:
    server = start_gateway()
    app = apply_app(database_url, "city-guide")
    _, key = make_key(database_url, app.app_id)
    with server.client(key) as client:
        conversation = Chat(client, user).blocking()["conversation_id"]
    assert with_database(database_url, lambda database: AppStore(database).delete(app.app_id)) == 0
    _, key = make_key(database_url, apply_app(database_url, "city-guide").app_id)
    with server.client(key) as client:
        chat = Chat(client, user)
        assert chat.conversations()["data"] == []
        refused(chat.post(conversation_id=conversation), 404, "not_found")
