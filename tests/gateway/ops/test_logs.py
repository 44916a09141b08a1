"""What an operator reads in the log: one line per request, one per turn, and what goes wrong for a while."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.settings import Settings
from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, fail, refuse, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import postgres_proxy, through
from tests.support.fleet import Fleet
from tests.support.gateway_process import START_SECONDS, GatewayProcess, environment
from tests.support.gateway_server import API_KEY, GatewayServer, wait_until
from tests.support.log_lines import REQUESTS, TURNS, Line, kept_lines, lines_in
from tests.support.raw_http import Client
from tests.support.rows import installed, rows_of

CANARY = "canary-of-the-coal-mine"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def settings_of(backend: ScriptedBackend, **more: Any) -> dict[str, Any]:
    return {"BACKEND_URL": backend.url, "API_KEY": API_KEY, "LOG_FORMAT": "json", **more}


def stopped(process: GatewayProcess) -> list[Line]:
    """All that it has logged, once it has stopped."""
    process.send(signal.SIGTERM)
    process.exited()
    return lines_in(process.output)


def of(lines: list[Line], logger: str) -> list[Line]:
    return [line for line in lines if line["logger"] == logger]


# -- requests ------------------------------------------------------------------------------------------


def test_every_request_has_one_line_with_its_route_and_an_id_that_its_client_gets(
    chat: Chat, user: str
) -> None:
    with kept_lines(REQUESTS) as lines:
        answers = [
            chat.post("Hello", response_mode="streaming"),
            chat.post("Hello", response_mode="blocking", headers={"X-Request-Id": "from-a-proxy"}),
            chat.client.get("/conversations", params={"user": user, "limit": CANARY}),
            chat.client.head("/healthz"),
            chat.client.get(f"/{CANARY}"),
            chat.client.get(f"/form/human_input/{CANARY}"),
            chat.client.post("/chat-messages", content=b"{", headers={"X-Request-Id": 'no "id"'}),
            chat.client.options("/info"),
        ]
        wait_until(lambda: len(lines) == len(answers))
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/chat-messages", 200),
        ("POST", "/chat-messages", 200),
        ("GET", "/conversations", 400),
        ("HEAD", "/healthz", 200),
        ("GET", "(no route)", 404),
        ("GET", "/form/human_input/{form_token}", 404),
        ("POST", "/chat-messages", 400),
        ("OPTIONS", "/info", 405),
    ]
    assert [line["request_id"] for line in lines] == [one.headers["X-Request-Id"] for one in answers]
    assert [line.get("streamed", False) for line in lines] == [True] + 7 * [False]
    assert lines[1]["request_id"] == "from-a-proxy"
    made = [line["request_id"] for line in lines if line["request_id"] != "from-a-proxy"]
    assert [canonical_uuid(one) for one in made] == made
    assert all(line["level"] == "info" and line["seconds"] >= 0 for line in lines)
    assert CANARY not in str(lines)


def test_a_client_that_left_before_the_end_is_told_as_such(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(text("Half "), gate, text("whole"), succeed()))
    with kept_lines(REQUESTS) as lines:
        with chat.open("Long") as stream:
            stream.until("Half ")
        wait_until(lambda: lines)
        gate.open()
    assert [(line["status"], line.get("left")) for line in lines] == [(200, True)]


def test_a_request_that_the_server_refuses_has_a_line(server: GatewayServer) -> None:
    address = server.client().base_url.port
    assert address is not None
    with kept_lines("agent_gateway.server.connection") as lines, Client(address) as client:
        client.send(b"GET /" + CANARY.encode() + b" HTTP/9.9\r\n\r\n")
        assert client.answer().status in {400, 505}
        wait_until(lambda: lines)
    assert [("refused" in line["message"], CANARY in str(line)) for line in lines] == [(True, False)]


# -- turns ---------------------------------------------------------------------------------------------


def test_every_turn_has_one_line_at_its_end(
    chat: Chat, fake: ScriptedBackend, gate: Gate, server: GatewayServer
) -> None:
    fake.queue(script(text("Hé", "llo"), succeed()), script(text("Half "), gate, succeed()))
    fake.queue(script(text("Half an ans"), fail("InvokeRateLimitError", CANARY)))
    with kept_lines(TURNS) as lines:
        whole = chat.streaming("One", headers={"X-Request-Id": "request-1"})
        with chat.open("Two") as stream:
            stream.until("Half ")
            with chat.follow(stream.task_id):
                chat.stop(stream.task_id)
                stream.rest()
        failed = chat.streaming("Three")
        wait_until(lambda: len(lines) == 3)
    one, two, three = lines
    assert (one["outcome"], one["level"], one["message"]) == ("completed", "info", "turn completed")
    assert (one["task_id"], one["request_id"]) == (whole.task_id, "request-1")
    row = rows_of(server.settings.resolved_database_url(), whole.task_id)
    assert (one["run_id"], one["app"]) == (row.turn.run_id, "default")
    assert (one["chunks"], one["bytes"], one["readers"], one["adoptions"]) == (2, 6, 1, 0)
    assert row.message.usage is not None
    assert one["tokens"] == row.message.usage["total_tokens"]
    assert 0 < one["backend_seconds"] <= one["first_event_seconds"] <= one["seconds"]
    assert one["queued_seconds"] == 0
    assert "code" not in one
    assert (two["outcome"], two["level"], two["readers"]) == ("stopped", "info", 2)
    assert (three["outcome"], three["level"], three["code"]) == ("failed", "warning", "rate_limit_error")
    assert (three["task_id"], three["cause"]) == (failed.task_id, "InvokeRateLimitError")
    assert not {"One", "Two", "Three", "Half", "canary"} & set(str(lines).replace("'", " ").split())


def test_a_422_is_told_by_place_and_kind_never_by_value(chat: Chat, fake: ScriptedBackend) -> None:
    fake.queue(refuse(422))
    with kept_lines(TURNS) as lines:
        chat.post(CANARY, response_mode="blocking")
        wait_until(lambda: lines)
    assert lines[0]["cause"] == "BackendRefused 422 (body: made_up)"
    assert CANARY not in str(lines)


def test_a_queued_turn_is_no_adoption_and_its_time_in_the_queue_is_told(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    fake.queue(script(text("First "), gate, succeed()), script(text("Second"), succeed()))
    server = fleet.start()
    fleet.app("key-of-queue", on_busy="enqueue")
    chat = fleet.chat(server, user, "key-of-queue")
    with kept_lines("agent_gateway") as lines:
        with chat.open("One") as stream:
            first = stream.until("First ")[0]
            waiting = chat.background("Two", conversation_id=first["conversation_id"])
            gate.open()
            stream.rest()
        chat.resumed(waiting["task_id"])
        wait_until(lambda: len(of(lines, TURNS)) == 2)
    one, two = of(lines, TURNS)
    assert (one["queued_seconds"], two["task_id"]) == (0, waiting["task_id"])
    assert two["queued_seconds"] > 0
    assert [line["message"] for line in lines if "adopt" in line["message"]] == []


def test_an_adopted_turn_is_told_with_the_request_that_began_it(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    fake.queue(script(text("Half "), gate, text("whole"), succeed()))
    first = fleet.process(LOG_FORMAT="json").ready()
    second = fleet.process(LOG_FORMAT="json").ready()
    headers = {"X-Request-Id": "request-of-the-first", "traceparent": PARENT}
    with first.client() as client, Chat(client, user).open("Long", headers=headers) as stream:
        stream.until("Half ")
        task_id = stream.task_id
        first.send(signal.SIGKILL)
    wait_until(lambda: "adopted" in second.output)
    gate.open()
    with second.client() as client:
        assert Chat(client, user).resumed(task_id).answer == "Half whole"
    lines = stopped(second)
    [adopted] = [line for line in lines if "adopted" in line["message"]]
    assert (adopted["task_id"], adopted["level"]) == (task_id, "warning")
    assert "died" in adopted["message"]
    [end] = of(lines, TURNS)
    assert (end["task_id"], end["request_id"], end["adoptions"]) == (task_id, "request-of-the-first", 1)
    assert fake.requests[-1].headers["x-request-id"] == "request-of-the-first"
    assert fake.requests[-1].headers["traceparent"] == PARENT


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([PARENT], PARENT),
        ([], None),
        ([PARENT, PARENT], None),
        (["00-xyz-1-01"], None),
        ([f"{PARENT}-more"], None),
        ([PARENT.upper()], None),
    ],
)
def test_the_backend_gets_the_request_id_and_the_w3c_trace(
    chat: Chat, fake: ScriptedBackend, given: list[str], passed: str | None
) -> None:
    answer = chat.client.post(
        "/chat-messages",
        json={"query": "Hello", "user": chat.user, "response_mode": "blocking"},
        headers=[("traceparent", one) for one in given],
    )
    assert answer.status_code == 200
    headers = fake.requests[-1].headers
    assert headers.get("traceparent") == passed
    assert headers["x-request-id"] == answer.headers["X-Request-Id"]


def test_the_backend_server_logs_in_the_same_way_and_with_the_same_request_id(
    tmp_path: Path, user: str
) -> None:
    logged = tmp_path / "backend.log"
    command = [sys.executable, "-m", "agent_gateway", "backend", "--port", "0"]
    with logged.open("wb") as output:
        environ = environment(LOG_FORMAT="json", BACKEND_TOKEN=CANARY, DATA_DIR=tmp_path / "backend")
        backend = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ)
    try:
        listening = re.compile(r"Uvicorn running on (http://\S+)")
        wait_until(lambda: listening.search(logged.read_text()), START_SECONDS)
        found = listening.search(logged.read_text())
        assert found
        with (
            GatewayServer(tmp_path, backend_url=found[1], backend_token=CANARY) as server,
            server.client() as client,
        ):
            client.headers["X-Request-Id"] = "request-through-both"
            Chat(client, user).blocking("Hello canary")
        wait_until(lambda: "run succeeded" in logged.read_text())
    finally:
        backend.terminate()
        backend.wait(START_SECONDS)
    lines = lines_in(logged.read_text())
    told = [line for line in of(lines, REQUESTS) if line["route"] != "/openapi.json"]
    assert {(line["method"], line["route"], line["status"]) for line in told} == {
        ("POST", "/runs", 202),
        ("GET", "/runs/{run_id}/events/sse", 200),
    }
    [run] = of(lines, "agent_gateway.backend.embedded.runs.registry")
    assert (run["message"], run["request_id"]) == ("run succeeded", "request-through-both")
    assert {line["request_id"] for line in told} == {"request-through-both"}
    assert "canary" not in logged.read_text()


# -- what goes wrong for a while -------------------------------------------------------------------------


def test_a_backend_that_refuses_is_not_away(tmp_path: Path, fake: ScriptedBackend, user: str) -> None:
    settings = settings_of(fake, BACKEND_RECONNECT_SECONDS=0.5)
    with GatewayProcess(tmp_path, **settings) as process, process.client() as client:
        chat = Chat(client, user)
        fake.stop()
        refused(chat.post("Hello", response_mode="blocking"), 503, "service_unavailable")
        fake.start()
        fake.script = refuse(401)
        refused(chat.post("Hello", response_mode="blocking"), 502, "backend_refused")
        wait_until(lambda: "the backend is away no longer" in process.output)


def test_a_backend_that_is_away_is_told_once_and_that_it_is_back(
    tmp_path: Path, fake: ScriptedBackend, user: str
) -> None:
    settings = settings_of(fake, BACKEND_RECONNECT_SECONDS=0.5)
    with GatewayProcess(tmp_path, **settings) as process, process.client() as client:
        chat = Chat(client, user)
        fake.stop()
        for _ in range(3):
            refused(chat.post("Hello", response_mode="blocking"), 503, "service_unavailable")
        fake.start()
        chat.blocking("Hello")
        wait_until(lambda: "the backend is away no longer" in process.output)
        lines = stopped(process)
    told = [line for line in lines if "the backend is away" in line["message"]]
    assert [line["message"].partition("away")[2][:10] for line in told] == [": Connecti", " no longer"]
    assert told[-1]["failures"] >= 3
    assert len([line for line in of(lines, TURNS) if line["outcome"] == "failed"]) == 3


def test_a_database_that_is_away_is_told_once_and_that_it_is_back(
    postgres_url: str, fake: ScriptedBackend, tmp_path: Path, user: str
) -> None:
    with (
        postgres_proxy(postgres_url) as proxy,
        GatewayServer(tmp_path, database_url=through(proxy, postgres_url), backend_url=fake.url) as server,
        installed(server).client() as client,
        kept_lines("agent_gateway") as lines,
    ):
        proxy.cut()
        for _ in range(5):
            refused(client.get("/conversations", params={"user": user}), 503, "service_unavailable")
        wait_until(lambda: any("heartbeat failed" in line["message"] for line in lines))
        proxy.open()
        wait_until(lambda: any("no longer" in line["message"] for line in lines))
    told = [line for line in lines if "the database is away" in line["message"]]
    assert len(told) == 2
    assert [line["level"] for line in lines if line["level"] in {"warning", "error"}] == ["warning"] * 2


# -- a start ---------------------------------------------------------------------------------------------


def test_a_start_tells_in_one_line_what_it_runs_with(tmp_path: Path, fake: ScriptedBackend) -> None:
    url = fake.url.replace("http://", "http://name:secret-word@")
    settings = settings_of(fake, BACKEND_URL=url, FILES_URL=f"file://{tmp_path}/files?key=secret-word")
    with GatewayProcess(tmp_path, **settings) as process:
        lines = stopped(process)
    [line] = [line for line in lines if line["message"].startswith("running on ")]
    assert line["backend"] == fake.url
    assert line["database"] == f"sqlite {tmp_path}/data/agent-gateway.db"
    assert (line["data"], line["files"]) == (f"{tmp_path}/data", f"file://{tmp_path}/files")
    assert (line["docs"], line["workers"]) == (f"{line['message'].split()[-1]}/docs", 1)
    assert line["version"]
    assert "secret-word" not in process.output


def test_the_level_says_what_is_logged() -> None:
    code = (
        "import logging; from agent_gateway import logs; logs.configure('json', 'warning'); "
        "told = logging.getLogger('agent_gateway.x'); told.info('not this'); told.warning('but this')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert [line["message"] for line in lines_in(done.stderr)] == ["but this"]


def test_the_level_is_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_GATEWAY_LOG_LEVEL", "Warning")
    assert Settings().log_level == "warning"
