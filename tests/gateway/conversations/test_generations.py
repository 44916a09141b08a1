"""One app file and its conversations over both generations of the run protocol, at strict backends.

The backend is upgraded and rolled back in the middle of conversations; nothing is lost, sent twice or
rewritten in the rows.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.settings import Settings
from agent_gateway.store.db.tables import SnapshotRow
from tests.support.chat import Chat, refused
from tests.support.fakes.run import Logged
from tests.support.fakes.script import Gate, fail, script, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import history_of, query_of
from tests.support.fakes.strict import Generation
from tests.support.gateway_server import GatewayServer, StartGateway, wait_until
from tests.support.human_input import asked, expire, submitted, token_of
from tests.support.json_type import Json
from tests.support.outbox import all_done, snapshot_row
from tests.support.rows import look

APP = """
name: Both
composition:
  layers:
    - {{name: soul, type: plain.prompt, config: {{prefix: Be kind.}}}}
    - {{name: question, type: plain.prompt, config: {{user: "${{query}}"}}}}
    - name: context
      type: dify.execution_context
      config:
        tenant_id: ${{tenant_id}}
        user_id: ${{user_id}}
        app_id: ${{app_id}}
        user_from: end-user
        agent_mode: agent_app
        invoke_from: service-api
    - {{name: history, type: pydantic_ai.history}}
    - name: llm
      type: dify.plugin.llm
      deps: {{execution_context: context}}
      config: {{plugin_id: acme/p, model_provider: acme, model: m}}
    - {{name: ask_human, type: dify.ask_human, config: {{}}}}
"""

StartChat = Callable[..., Chat]


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        backend.speaks = 1
        yield backend


@pytest.fixture
def start_chat(
    backend: ScriptedBackend, start_gateway: StartGateway, tmp_path: Path, user: str
) -> Iterator[StartChat]:
    """A chat with the app of both generations, at a gateway of its own; another one is its restart."""
    servers: list[GatewayServer] = []
    with ExitStack() as stack:

        def start(**settings: Any) -> Chat:
            for server in servers:
                server.stop()
            path = tmp_path / "app.yaml"
            path.write_text(APP.format(), "utf-8")
            server = start_gateway(backend_url=backend.url, app_file=path, **settings)
            servers.append(server)
            return Chat(stack.enter_context(server.client()), user)

        yield start


@pytest.fixture
def chat(start_chat: StartChat) -> Chat:
    return start_chat()


def spoken(backend: ScriptedBackend) -> list[int]:
    """The generation of every request."""
    return [post.body["composition"]["schema_version"] for post in backend.requests]


def remembered(body: Json) -> list[str]:
    """What was said in the turns before, as the agent gets it."""
    return [
        part["content"]
        for message in history_of(body.get("session_snapshot"))
        for part in message["parts"]
        if part["part_kind"] in ("user-prompt", "text")
    ]


def stored(url: str, conversation_id: str) -> Any:
    row = snapshot_row(url, conversation_id)
    assert row is not None
    return json.loads(row.data)


def ended_with(backend: ScriptedBackend) -> Any:
    """The session snapshot that the newest run gave."""
    last = list(backend.runs.values())[-1].log[-1]
    assert isinstance(last, Logged)
    return last.event["data"]["session_snapshot"]


@pytest.mark.parametrize("documented", [True, False], ids=["it-says-so", "it-says-nothing"])
def test_a_conversation_continues_after_an_upgrade_and_its_rollback(
    chat: Chat, backend: ScriptedBackend, database_url: str, documented: bool
) -> None:
    backend.documented = documented
    conversation_id = ""
    said: list[str] = []
    order: list[Generation] = [1, 1, 2, 2, 1, 1, 2]
    for number, speaks in enumerate(order, start=1):
        backend.speaks = speaks
        turn = chat.blocking(f"Turn {number}", conversation_id=conversation_id)
        conversation_id = turn["conversation_id"]
        assert turn["answer"] == f"You said: Turn {number}."
        body = backend.requests[-1].body
        assert remembered(body) == said
        said += [f"Turn {number}", turn["answer"]]
        # The row is what this backend said, not what the next one will get.
        snapshot = stored(database_url, conversation_id)
        assert snapshot == ended_with(backend)
        assert isinstance(snapshot["layers"], list if speaks == 1 else dict)
    assert spoken(backend) == [1, 1, *(1, 2), 2, *(2, 1), 1, *(1, 2)], "each refused once, then never again"
    assert len(backend.runs) == 7
    assert [message["answer"] for message in chat.messages(conversation_id)] == said[1::2]
    if documented:
        assert backend.documents == 4, "once at first, once after each change"


def test_a_request_that_was_converted_is_one_turn_with_one_stream(
    chat: Chat, backend: ScriptedBackend
) -> None:
    first = chat.streaming("Hello")
    backend.speaks = 2
    heard = chat.streaming("Again", conversation_id=first.conversation_id)
    assert heard.kinds[-1] == "message_end"
    assert heard.answer == "You said: Again."
    assert chat.resumed(heard.task_id).events == heard.events
    assert backend.posts == 3
    assert len(backend.runs) == 2


def test_failed_and_stopped_turns_are_remembered_after_an_upgrade(
    chat: Chat, backend: ScriptedBackend
) -> None:
    """Newer backends give their snapshot with any end; it holds what was said until then."""
    names = ["soul", "question", "context", "history", "llm", "ask_human"]
    messages: list[Json] = [
        {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "Fails"}], "state": "complete"},
        {"kind": "response", "parts": [{"part_kind": "text", "content": "Half"}], "state": "interrupted"},
    ]
    layers = [
        {
            "name": name,
            "lifecycle_state": "suspended",
            "runtime_state": {"messages": messages} if name == "history" else {},
        }
        for name in names
    ]
    snapshot = {"schema_version": 1, "layers": layers}
    backend.queue(script(text("Half"), fail("InvokeRateLimitError", session_snapshot=snapshot, usage=None)))
    with chat.open("Fails") as stream:
        failed = stream.rest()
    assert failed.kinds[-1] == "error"
    backend.speaks = 2
    turn = chat.blocking("Go on", conversation_id=failed.conversation_id)
    assert turn["answer"] == "You said: Go on."
    assert remembered(backend.requests[-1].body) == ["Fails", "Half"]


@pytest.mark.parametrize("how", ["message", "form"])
def test_a_question_left_open_over_an_upgrade_is_answered_as_text(
    chat: Chat, backend: ScriptedBackend, database_url: str, how: str
) -> None:
    first = chat.blocking("Hello")
    conversation_id = first["conversation_id"]
    heard = asked(chat, backend, "Do it", conversation_id=conversation_id)
    backend.speaks = 2
    if how == "message":
        answered = chat.streaming("Yes, do", conversation_id=conversation_id)
        told = "Yes, do"
    else:
        answered = chat.resumed(submitted(chat, token_of(heard), size="s", comment="go")["task_id"])
        told = "Approve\nComment: go\nSize: Small"
    assert answered.kinds[0] == "human_input_form_filled"
    assert answered.kinds[-1] == "message_end"
    assert answered.answer == f"You said: {told}."
    body = backend.requests[-1].body
    assert query_of(body) == told
    *_, last = history_of(body["session_snapshot"])
    assert [part["tool_name"] for part in last["parts"]] == ["ask_human"]
    assert last["state"] == "interrupted"
    # And it continues after a roll-back, too.
    backend.speaks = 1
    after = chat.blocking("And then?", conversation_id=conversation_id)
    assert after["answer"] == "You said: And then?."
    assert remembered(backend.requests[-1].body)[-2:] == [told, f"You said: {told}."]
    assert isinstance(stored(database_url, conversation_id)["layers"], list)
    assert len(backend.runs) == 4


def test_a_question_that_expires_after_an_upgrade_is_reported_as_text(
    chat: Chat, backend: ScriptedBackend, database_url: str
) -> None:
    heard = asked(chat, backend)
    backend.speaks = 2
    expire(database_url, heard)
    wait_until(lambda: len(backend.runs) == 2)
    wait_until(lambda: len(chat.messages(heard.conversation_id)) == 2)
    wait_until(lambda: chat.message(heard.conversation_id)["answer"])
    assert chat.message(heard.conversation_id)["answer"] == "You said: No answer was given in time.."


def test_a_question_answered_after_upgrade_and_roll_back_is_the_tools_result(
    chat: Chat, backend: ScriptedBackend
) -> None:
    heard = asked(chat, backend)
    backend.speaks = 2
    chat.blocking("Something else")
    backend.speaks = 1
    answered = chat.resumed(submitted(chat, token_of(heard))["task_id"])
    assert answered.kinds[-1] == "message_end"
    calls = backend.requests[-1].body["deferred_tool_results"]["calls"]
    assert calls["call_ask_1"]["action"] == {"id": "approve", "label": "Approve"}


def test_a_restarted_gateway_detects_the_generation_of_the_backend(
    start_chat: StartChat, backend: ScriptedBackend
) -> None:
    """The choice is kept by each process, not in the database."""
    conversation_id = start_chat().blocking("One")["conversation_id"]
    backend.speaks = 2
    # It asks before it sends anything.
    again = start_chat()
    assert again.blocking("Two", conversation_id=conversation_id)["answer"] == "You said: Two."
    assert spoken(backend) == [1, 2]
    assert backend.documents == 2


@pytest.mark.parametrize("schema", [1, 2])
def test_the_setting_decides_when_the_backend_does_not_state_its_generation(
    start_chat: StartChat, backend: ScriptedBackend, schema: Any
) -> None:
    backend.speaks, backend.documented = schema, False
    chat = start_chat(backend_schema=schema)
    assert chat.blocking("Hi")["answer"] == "You said: Hi."
    assert spoken(backend) == [schema]


@pytest.mark.parametrize(("written", "read"), [("1", 1), ("2", 2), ("", None)])
def test_the_setting_is_a_number_in_the_environment(
    written: str, read: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_GATEWAY_BACKEND_SCHEMA", written)
    assert Settings(_env_file=None).backend_schema == read
    monkeypatch.setenv("AGENT_GATEWAY_BACKEND_SCHEMA", "3")
    with pytest.raises(ValidationError, match="Input should be 1 or 2"):
        Settings(_env_file=None)


@pytest.mark.parametrize("speaks", [1, 2])
def test_a_request_that_is_wrong_in_both_fails_the_turn_once(
    start_chat: StartChat, backend: ScriptedBackend, speaks: Any
) -> None:
    chat = start_chat()
    backend.speaks = speaks
    backend.queue(script(create=422))
    refused(chat.post("sk-secret"), 502, "backend_refused")
    assert backend.posts == 1
    assert backend.runs == {}


def test_a_turn_interrupted_by_an_upgrade_is_continued_in_the_new_form(
    chat: Chat, backend: ScriptedBackend, gate: Gate
) -> None:
    """As real backends do it: who stops ends its runs, with what was said so far."""
    first = chat.blocking("Hello")
    before = ended_with(backend)
    backend.queue(script(text("Half "), gate, fail("shutdown", session_snapshot=before, usage=None)))
    with chat.open("Long", conversation_id=first["conversation_id"]) as stream:
        stream.until("Half ")
        backend.speaks = 2
        gate.open()
        assert stream.rest().kinds[-1] == "error"
    again = chat.blocking("Again", conversation_id=first["conversation_id"])
    assert again["answer"] == "You said: Again."
    assert remembered(backend.requests[-1].body) == ["Hello", "You said: Hello."]


@pytest.mark.parametrize("speaks", [1, 2])
def test_an_unreadable_snapshot_fails_its_turns_and_is_kept(
    chat: Chat,
    backend: ScriptedBackend,
    database_url: str,
    speaks: Generation,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend.speaks = speaks
    conversation_id = chat.blocking("Hello")["conversation_id"]

    async def spoil(session: AsyncSession) -> None:
        await session.execute(update(SnapshotRow).values(data='{"layers": "sk-secret"}'))

    look(database_url, spoil)
    refused(chat.post("Again", conversation_id=conversation_id), 500, "internal_server_error")
    assert backend.posts == 1
    assert stored(database_url, conversation_id) == {"layers": "sk-secret"}
    wait_until(lambda: f"conversation {conversation_id}: its snapshot cannot be read" in caplog.text)
    assert "was not cleaned up" not in caplog.text
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize("speaks", [1, 2])
def test_a_deleted_conversation_costs_one_failed_run_once(
    chat: Chat, backend: ScriptedBackend, database_url: str, speaks: Generation
) -> None:
    """Neither makes a run without a model: the first such run says so, and no other is asked for."""
    backend.speaks = speaks
    for number in range(2):
        conversation_id = chat.blocking(f"Number {number}")["conversation_id"]
        gone = chat.client.request("DELETE", f"/conversations/{conversation_id}", json={"user": chat.user})
        assert gone.status_code == 204
        all_done(database_url)
        assert snapshot_row(database_url, conversation_id) is None
    assert [run.status for run in backend.runs.values()] == ["succeeded", "failed", "succeeded"]
