"""The trace of a request reaches the agent, whoever runs the turn and however long it waited."""

from collections.abc import Iterator

import pytest

from agent_gateway.apps.config import AppConfig
from tests.support.chat import Chat
from tests.support.fakes.script import Gate, ask_human, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.rows import add_app

PREFIX = "${trace_id}/${trace_session_id}"
CONFIG = {
    "name": "Traced",
    "composition": {
        "layers": [
            {"name": "prompt", "type": "plain.prompt", "config": {"prefix": PREFIX, "user": "${query}"}},
            {"name": "history", "type": "pydantic_ai.history"},
        ]
    },
}


@pytest.fixture
def traced(server: GatewayServer, user: str) -> Iterator[Chat]:
    """This test's user of an app that passes the trace on."""
    add_app(server.settings.resolved_database_url(), key := f"key-{user}", AppConfig.model_validate(CONFIG))
    with server.client(key) as client:
        yield Chat(client, user)


def told(fake: ScriptedBackend) -> list[str]:
    """The trace that each run was given."""
    return [request.body["composition"]["layers"][0]["config"]["prefix"] for request in fake.requests]


@pytest.mark.parametrize(
    ("headers", "body", "trace"),
    [
        ({}, {}, "/"),
        ({"X-Trace-Id": "4bf9-2f:3.5_7"}, {}, "4bf9-2f:3.5_7/"),
        ({"x-trace-session-id": "s-1"}, {"trace_id": "from-body"}, "from-body/s-1"),
        ({"X-Trace-Id": "wins", "X-Trace-Session-Id": "s" * 128}, {"trace_id": "loses"}, f"wins/{'s' * 128}"),
        ({"X-Trace-Id": "no id"}, {"trace_id": "one"}, "one/"),
        ({"X-Trace-Id": "x" * 129, "X-Trace-Session-Id": "${query}"}, {"trace_id": "é"}, "/"),
        ({}, {"trace_id": 7}, "/"),
        ({}, {"trace_id": None}, "/"),
        ({}, {"trace_id": {"a": []}}, "/"),
    ],
)
def test_a_trace_reaches_the_agent(
    traced: Chat, fake: ScriptedBackend, headers: dict[str, str], body: Json, trace: str
) -> None:
    traced.blocking(headers=headers, **body)
    assert told(fake) == [trace]


def test_a_queued_message_keeps_its_trace(traced: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("One"), gate, succeed()))
    with traced.open("First", headers={"X-Trace-Id": "first"}) as stream:
        conversation_id = stream.next()["conversation_id"]
        second = traced.background(
            "Second", conversation_id=conversation_id, headers={"X-Trace-Id": "second"}
        )
        gate.open()
        stream.rest()
    assert traced.resumed(second["task_id"]).kinds[-1] == "message_end"
    assert told(fake) == ["first/", "second/"]


def test_an_answer_has_the_trace_of_its_question(traced: Chat, fake: ScriptedBackend) -> None:
    fake.queue(script(ask_human("Shall I?")))
    asked = traced.blocking(headers={"X-Trace-Id": "asked", "X-Trace-Session-Id": "s"})
    form = traced.message(asked["conversation_id"])["extra_contents"][0]["form_definition"]
    answer = {"user": traced.user, "action": form["actions"][0]["id"]}
    submitted = traced.client.post(f"/form/human_input/{form['form_token']}", json=answer).json()
    assert traced.resumed(submitted["task_id"]).kinds[-1] == "message_end"
    assert told(fake) == ["asked/s", "asked/s"]
