"""What must not be seen is nowhere: not in any response, not in any log record, not in the database."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.logs import formatter
from agent_gateway.server.config import server_config
from tests.support.chat import Chat, forged, refused
from tests.support.fakes.script import (
    Cut,
    Emit,
    Raw,
    Script,
    ScriptSource,
    ask_human,
    cancelled,
    fail,
    recorded,
    refuse,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.paths import RECORDED
from tests.support.rows import installed, look, rows_of

PROVIDER_KEY = "sk-provider-4711"
BACKEND_TOKEN = "backend-token-0815"
API_KEY = "app-key-1234567890"
WRONG_KEY = "app-wrong-0987654321"
SECRET_KEY = "signing-secret-42-as-long-as-they-have-to-be"
CREDENTIALS = [PROVIDER_KEY, BACKEND_TOKEN, API_KEY, WRONG_KEY, SECRET_KEY]

QUERY = "I have a rash on my left knee"
INPUT = "Ms Example of Exampletown"
ANSWER = "Put some ointment on it"
THOUGHT = "A rash may be an allergy"
ARGUMENT = "lookup of ointments"
OBSERVATION = "the chemist is closed"
TEXTS = [QUERY, INPUT, ANSWER, THOUGHT, ARGUMENT, OBSERVATION]

LEAK = f"1 validation error for LLMLayerConfig\n[input_value={{'key': '{PROVIDER_KEY}'}}] {QUERY}"

APP = {
    "name": "With credentials",
    "user_input_form": [{"text-input": {"label": "Name", "variable": "name"}}],
    "composition": {
        "layers": [
            {"name": "prompt", "type": "plain.prompt", "config": {"prefix": "Talk to ${inputs.name}."}},
            {"name": "user", "type": "plain.prompt", "config": {"user": "${query}"}},
            {"name": "history", "type": "pydantic_ai.history"},
            {
                "name": "llm",
                "type": "llm",
                "config": {"credentials": {"api_key": "${env:TEST_PROVIDER_KEY}"}},
            },
        ]
    },
}

TURNS: dict[str, ScriptSource] = {
    "works": script(
        thinking(THOUGHT),
        tool_call("1", "search", {"query": ARGUMENT}),
        tool_result("1", "search", OBSERVATION),
        text(ANSWER[:8], ANSWER[8:]),
        succeed(),
    ),
    "asks": script(ask_human(f"{QUERY}?")),
    "422 that echoes the request": refuse(422),
    "401": refuse(401),
    "500": refuse(500),
    "503": refuse(503),
    "create is garbage": Script(create="garbage"),
    "create is cut": Script(create="cut"),
    "fails": script(text(ANSWER), fail(None, LEAK)),
    "fails with a known reason": script(fail("InvokeAuthorizationError", LEAK)),
    "fails with the secret as reason": script(fail(PROVIDER_KEY, LEAK)),
    "cancelled": script(text(ANSWER), cancelled(LEAK, LEAK)),
    "recorded leak": script(*recorded(RECORDED / "bad_llm_config_leaks.sse"), started=False),
    "garbage frames": script(
        text(ANSWER), *[Raw(f"data: {LEAK!r}\n\n".encode()), Cut()] * 2, Raw(b"data: [1]\n\n"), Cut()
    ),
    "half of an event": script(text(ANSWER), *[Raw(f'data: {{"id":"{PROVIDER_KEY}'.encode()), Cut()] * 30),
    "an event without an id": script(Raw(f'data: {{"type":"{PROVIDER_KEY}"}}\n\n'.encode()), Cut()),
    "a gap in the log": script(Emit("pydantic_ai_event", {"secret": LEAK}), started=False),
}


@dataclass
class Seen:
    """Everything clients got."""

    responses: list[httpx.Response] = field(default_factory=list)

    def keep(self, response: httpx.Response) -> None:
        response.read()
        self.responses.append(response)

    def holds(self, secret: str) -> list[str]:
        """The requests whose answer has the secret in it."""
        return [
            f"{response.request.method} {response.request.url}"
            for response in self.responses
            if secret in response.text or secret in str(response.headers)
        ]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def every_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Our loggers and the server's say all they can."""
    for name in ("agent_gateway", "uvicorn", "uvicorn.error", "asyncio", "sse_starlette"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


@pytest.fixture(scope="module")
def guarded() -> Iterator[ScriptedBackend]:
    with ScriptedBackend(token=BACKEND_TOKEN) as backend:
        yield backend


def settings_of(backend: ScriptedBackend, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TEST_PROVIDER_KEY", PROVIDER_KEY)
    app_file = folder / "app.yaml"
    app_file.write_text(yaml.safe_dump(APP))
    return {
        "app_file": app_file,
        "api_key": API_KEY,
        "secret_key": SECRET_KEY,
        "backend_url": backend.url,
        "backend_token": BACKEND_TOKEN,
        "backend_reconnect_seconds": 0.2,
    }


@pytest.fixture
def secretive(
    every_log: pytest.LogCaptureFixture,
    guarded: ScriptedBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[GatewayServer]:
    with GatewayServer(tmp_path, **settings_of(guarded, tmp_path, monkeypatch)) as server:
        yield server
    guarded.script = script(text("unused"), succeed())


def not_logged(caplog: pytest.LogCaptureFixture, *secrets: str) -> None:
    # The access log is switched off, see below, but pytest switches it on again.
    records = [
        record
        for record in (*caplog.get_records("setup"), *caplog.records)
        if record.name != "uvicorn.access"
    ]
    assert records, "nothing was logged: this test sees nothing"
    json_lines = formatter("json")
    for record in records:
        shown = f"{caplog.handler.format(record)} {json_lines.format(record)} {record.args}"
        for secret in secrets:
            assert secret not in shown


def client_of(server: GatewayServer, seen: Seen, key: str = API_KEY) -> httpx.Client:
    return server.client(key, event_hooks={"response": [seen.keep]})


@pytest.mark.slow
def test_a_turn_exposes_no_credentials_and_logs_no_texts(
    secretive: GatewayServer,
    guarded: ScriptedBackend,
    every_log: pytest.LogCaptureFixture,
    seen: Seen,
    user: str,
    tmp_path: Path,
) -> None:
    """The backend succeeds, or fails with all the details that real ones put into their errors."""
    tickets: set[str] = set()
    with client_of(secretive, seen) as client:
        chat = Chat(client, user)
        for source in TURNS.values():
            guarded.script = source
            chat.post(QUERY, inputs={"name": INPUT}, response_mode="streaming")
            begun = chat.background(QUERY, inputs={"name": INPUT})
            tickets.add(httpx.URL(begun["events_url"]).params["ticket"])
            client.get(begun["events_url"])
            chat.resumed(begun["task_id"], mode="agent-chat")
            chat.stop(begun["task_id"])
            chat.messages(begun["conversation_id"])
        chat.conversations()
    assert PROVIDER_KEY in str(guarded.requests[-1].body), "the backend has to get it"
    for secret in CREDENTIALS:
        assert seen.holds(secret) == []
    assert seen.holds("LLMLayerConfig") == []
    assert seen.holds("validation error") == []
    not_logged(every_log, *CREDENTIALS, *TEXTS, *tickets)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("agent-gateway.db*"))
    assert QUERY.encode() in stored
    for secret in CREDENTIALS:
        assert secret.encode() not in stored


def test_a_refused_request_exposes_and_logs_nothing_of_its_content(
    secretive: GatewayServer, every_log: pytest.LogCaptureFixture, seen: Seen, user: str
) -> None:
    with client_of(secretive, seen) as client, client_of(secretive, seen, WRONG_KEY) as stranger:
        chat = Chat(client, user)
        begun = chat.background(QUERY, inputs={"name": INPUT})
        ticket = httpx.URL(begun["events_url"]).params["ticket"]
        for body in (
            {"query": [QUERY], "user": user},
            {"query": QUERY, "user": user, "inputs": PROVIDER_KEY},
            {"query": QUERY, "user": user, "response_mode": PROVIDER_KEY},
            {"query": QUERY, "user": user, "conversation_id": PROVIDER_KEY},
            {"query": QUERY, "user": user, "files": [{"type": PROVIDER_KEY}]},
        ):
            refused(client.post("/chat-messages", json=body), 400, "invalid_param")
        broken = f'{{"query": "{QUERY}", "inputs": {{"name": "{PROVIDER_KEY}"'
        refused(client.post("/chat-messages", content=broken), 400, "invalid_param")
        refused(stranger.post("/chat-messages", json={"query": QUERY, "user": user}), 401, "unauthorized")
        refused(chat.post(headers={"Last-Event-ID": PROVIDER_KEY}), 400, "invalid_param")
        events = f"/chat-messages/{begun['task_id']}/events"
        for wrong in (forged(ticket), f"{ticket}.{PROVIDER_KEY}", PROVIDER_KEY):
            refused(client.get(events, params={"ticket": wrong}), 401, "unauthorized")
        refused(client.get(f"/chat-messages/{PROVIDER_KEY}/events", params={"user": user}), 404, "not_found")
        refused(client.get("/messages", params={"conversation_id": PROVIDER_KEY}), 400, "invalid_param")
        refused(client.get(f"/nowhere/{PROVIDER_KEY}"), 404, "not_found")
    for secret in (*CREDENTIALS, QUERY):
        assert seen.holds(secret) == []
    not_logged(every_log, *CREDENTIALS, *TEXTS, ticket)


def test_a_backend_that_refuses_the_token_exposes_nothing(
    every_log: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    user: str,
) -> None:
    with ScriptedBackend(token="another token") as backend:
        settings = settings_of(backend, tmp_path, monkeypatch)
        with GatewayServer(tmp_path, **settings) as server, client_of(server, seen) as client:
            refused(Chat(client, user).post(QUERY), 502, "backend_refused")
        assert backend.requests == []
    for secret in CREDENTIALS:
        assert seen.holds(secret) == []
    not_logged(every_log, *CREDENTIALS, *TEXTS)


@pytest.mark.parametrize("broken", ["environment", "snapshot"])
def test_a_turn_that_cannot_be_composed_logs_no_secret(
    secretive: GatewayServer,
    guarded: ScriptedBackend,
    every_log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    user: str,
    broken: str,
) -> None:
    guarded.script = script(text(ANSWER), succeed())
    with client_of(secretive, seen) as client:
        chat = Chat(client, user)
        first = chat.blocking(QUERY)
        if broken == "environment":
            monkeypatch.delenv("TEST_PROVIDER_KEY")
        else:
            statement = sql("UPDATE snapshots SET data = :data")
            look(
                secretive.settings.resolved_database_url(),
                lambda session: _execute(session, statement, {"data": f'{{"{ANSWER}'}),
            )
        posts = guarded.posts
        response = chat.post(QUERY, conversation_id=first["conversation_id"])
        refused(response, 500, "internal_server_error")
        assert guarded.posts == posts
    not_logged(every_log, *CREDENTIALS, *TEXTS)


async def _execute(session: AsyncSession, statement: Any, values: dict[str, Any] | None = None) -> None:
    await session.execute(statement, values or {})


def test_a_result_the_database_refuses_fails_the_turn_and_is_not_logged(
    every_log: pytest.LogCaptureFixture,
    guarded: ScriptedBackend,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    user: str,
) -> None:
    """Postgres quotes the whole row in what it says about a broken constraint (R7)."""
    check = "ALTER TABLE messages ADD CONSTRAINT no_ointment CHECK (answer NOT LIKE '%ointment%')"
    look(postgres_url, lambda session: _execute(session, sql(check)))
    guarded.script = TURNS["works"]
    settings = settings_of(guarded, tmp_path, monkeypatch)
    with GatewayServer(tmp_path, database_url=postgres_url, **settings) as server:
        with client_of(installed(server), seen) as client:
            heard = Chat(client, user).streaming(QUERY, inputs={"name": INPUT})
        assert heard.kinds.count("error") == 1
        assert (heard.last["event"], heard.last["code"]) == ("error", "internal_server_error")
        rows = rows_of(postgres_url, heard.task_id)
        assert (rows.turn.state, rows.turn.outcome, rows.message.answer) == ("ended", "failed", "")
    not_logged(every_log, *CREDENTIALS, *TEXTS)


def test_the_server_logs_no_urls() -> None:
    """They hold tickets."""
    config = server_config(None)
    assert config.access_log is False
    assert config.log_config is None
