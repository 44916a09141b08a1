"""Canaries: what clients send and backends say is planted everywhere, and found in no log and no metric."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_gateway.app import create_app
from agent_gateway.settings import Settings
from tests.support.chat import Chat
from tests.support.fakes.model_server import serving
from tests.support.fakes.script import Raw, ask_human, cancelled, fail, refuse, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY

CANARY = "canary-of-the-coal-mine"
DOCUMENT = create_app(Settings.model_construct()).openapi()
ROUTES = [
    (method, path)
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method in methods
    if (method, path) != ("post", "/chat-messages")
]
WRONG = "app-wrong-key-of-a-stranger"


@pytest.fixture(params=["text", "json"])
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, fake: ScriptedBackend
) -> Iterator[GatewayProcess]:
    """A process that logs all that it can, in one of the two styles."""
    settings = {"LOG_FORMAT": request.param, "LOG_LEVEL": "debug", "BACKEND_RECONNECT_SECONDS": 0.2}
    with GatewayProcess(tmp_path, BACKEND_URL=fake.url, API_KEY=API_KEY, **settings) as process:
        yield process


def canaries(schema: dict[str, Any]) -> dict[str, Any]:
    """A body with a canary in each field that takes text, and in a field that does not exist."""
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = dict.fromkeys(schema.get("properties", {}), CANARY)
    return fields | {CANARY: CANARY, "inputs": {CANARY: CANARY}}


def call(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """A request with canaries in all places."""
    described = DOCUMENT["paths"][path][method]
    parameters = described.get("parameters", [])
    filled = path
    for parameter in parameters:
        if parameter["in"] == "path":
            filled = filled.replace(f"{{{parameter['name']}}}", f"{CANARY}%0aERROR")
    query = {one["name"]: CANARY for one in parameters if one["in"] == "query"} | {CANARY: CANARY}
    headers = {"Idempotency-Key": CANARY, "Last-Event-ID": CANARY, "X-Trace-Id": CANARY, "Cookie": CANARY}
    content = described.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        file = (f"{CANARY}.txt", CANARY.encode(), f"text/{CANARY}")
        return client.request(
            method, filled, params=query, headers=headers, files={"file": file}, data={"user": CANARY}
        )
    body = canaries(content["application/json"]["schema"]) if content else None
    return client.request(method, filled, params=query, headers=headers, json=body)


def test_no_route_logs_what_it_was_sent(gateway: GatewayProcess) -> None:
    with gateway.client() as client, gateway.client(WRONG) as stranger:
        for method, path in ROUTES:
            for one in (client, stranger):
                assert call(one, method, path).status_code < 500 or path.startswith("/audio"), path
            client.request(method, path.split("{")[0] + CANARY, content=CANARY.encode())
        metrics = client.get("/metrics").text
        gateway.send(signal.SIGTERM)
        gateway.exited()
    assert gateway.output.count("/conversations") >= 2, "nothing was logged: this test sees nothing"
    for secret in (CANARY, API_KEY, WRONG):
        assert secret not in gateway.output
        assert secret not in metrics


def test_no_turn_logs_what_was_said(gateway: GatewayProcess, fake: ScriptedBackend) -> None:
    """Whatever the backend answers, and whatever it repeats of it."""
    says = f"401 status_code: 401 {CANARY} api_key={CANARY}"
    fake.queue(
        script(text(CANARY), succeed()),
        script(ask_human(CANARY)),
        refuse(422),
        refuse(500),
        script(text(CANARY), fail(CANARY, says)),
        script(text(CANARY), fail(None, says, error_type=CANARY)),
        script(cancelled(CANARY, CANARY)),
        script(Raw(f"data: {CANARY}\n\n".encode())),
        script(text(CANARY), succeed(output=CANARY)),
    )
    with gateway.client() as client:
        chat = Chat(client, f"{CANARY}-user")
        client.headers["X-Trace-Id"] = CANARY
        client.post(
            "/files/upload",
            files={"file": (f"{CANARY}.txt", CANARY.encode(), "text/plain")},
            data={"user": chat.user},
        )
        for number in range(9):
            client.headers["Idempotency-Key"] = f"{CANARY}-{number}"
            begun = chat.post(f"{CANARY} {number}", response_mode="streaming", inputs={"a": CANARY})
            task_id = begun.headers.get("X-Task-Id")
            if task_id:
                chat.stop(task_id)
                client.get(begun.headers["X-Turn-Events-URL"])
        gateway.send(signal.SIGTERM)
        gateway.exited()
    assert gateway.output.count("turn failed") >= 5
    assert CANARY not in gateway.output
    assert "ticket" not in gateway.output
    assert API_KEY not in gateway.output


@pytest.mark.parametrize("model", ["m-401", "m-code-model_not_found-404", "m-cut", "m-end", "m"])
def test_no_error_of_a_model_provider_is_logged(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(CANARY) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", f"sk-{CANARY}")
        settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "MODEL": f"openai-chat:{model}"}
        with GatewayProcess(tmp_path, API_KEY=API_KEY, **settings) as process, process.client() as client:
            Chat(client, "ada").post(f"Hello {CANARY}", response_mode="blocking")
            process.send(signal.SIGTERM)
            process.exited()
    assert process.output.count('"outcome":') == 1
    assert CANARY not in process.output
