"""Text of clients does not reach the log, not even while the database is away."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.logs import formatter
from tests.support.chat import Chat, refused
from tests.support.fakes.script import fail, script, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import postgres_proxy, through
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, GatewayServer
from tests.support.rows import installed

TOKEN = "a-token-that-lets-anybody-answer"


def test_paths_are_not_logged_while_the_database_is_away(
    postgres_url: str, fake: ScriptedBackend, tmp_path: Path, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="agent_gateway")
    with (
        postgres_proxy(postgres_url) as proxy,
        GatewayServer(tmp_path, database_url=through(proxy, postgres_url), backend_url=fake.url) as server,
        installed(server).client() as client,
    ):
        assert client.get("/conversations", params={"user": user}).status_code == 200
        proxy.cut()
        for path in (f"/form/human_input/{TOKEN}", f"/form/human_input/x%1b%5d0;{TOKEN}%07%0d%0aERROR"):
            refused(client.get(path, params={"user": user}), 503, "service_unavailable")
    told = [one for one in caplog.records if one.name == "agent_gateway.server.requests"]
    assert [one.__dict__["route"] for one in told][-2:] == ["/form/human_input/{form_token}"] * 2
    assert [one.__dict__["status"] for one in told][-2:] == [503, 503]
    assert all(one.getMessage().isprintable() for one in caplog.records)
    assert TOKEN not in caplog.text


def test_control_characters_are_escaped_in_log_lines() -> None:
    record = logging.LogRecord(
        "x", logging.ERROR, "", 0, "one\r\n\x1b]0;%s\x07 \u2028 \x9b é 张", ("two",), None
    )
    line = formatter("text").format(record)
    assert "one\\r\\n\\x1b]0;two\\x07 \\u2028 \\x9b é 张" in line
    assert line.isprintable()


@pytest.mark.parametrize("style", ["text", "json"])
def test_halves_of_characters_do_not_lose_a_log_line(style: Literal["text", "json"]) -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "half \ud83d of %s", ("one",), None)
    record.__dict__["cause"] = "\ude00"
    line = formatter(style).format(record)
    assert "half \\ud83d of one" in line
    assert "\\ude00" in line
    assert line.isascii()


def test_a_log_that_cannot_be_written_fails_nobody() -> None:
    """The disk of the log is full. /dev/full says so to every write."""
    code = (
        "import logging, sys; from agent_gateway import logs; sys.stderr = open('/dev/full', 'w'); "
        "logs.configure('json'); told = logging.getLogger('agent_gateway.x'); "
        "told.info('one'); told.warning('two'); print('still here', flush=True)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "still here\n"


def test_a_log_record_has_the_ids_of_its_turn_run_and_request(
    tmp_path: Path, fake: ScriptedBackend, user: str
) -> None:
    fake.queue(script(text("Half an ans"), fail("run_limit_exceeded")))
    settings = {"BACKEND_URL": fake.url, "API_KEY": API_KEY, "LOG_FORMAT": "json"}
    with GatewayProcess(tmp_path, **settings) as process, process.client() as client:
        client.headers["X-Request-Id"] = "request-1"
        failed = Chat(client, user).streaming()
        assert failed.last["event"] == "error"
        process.send(signal.SIGTERM)
        process.exited()
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line["logger"] == "agent_gateway.turns.end_report"]
    run_id = list(fake.runs)[-1]
    assert (line["task_id"], line["run_id"], line["request_id"]) == (failed.task_id, run_id, "request-1")
    assert "failed" in line["message"]
    assert line["level"] == "warning"
    assert {"time", "message"} < line.keys()


def test_an_invalid_request_id_is_replaced(tmp_path: Path, fake: ScriptedBackend, user: str) -> None:
    fake.queue(script(text("Half an ans"), fail("run_limit_exceeded")))
    settings = {"BACKEND_URL": fake.url, "API_KEY": API_KEY, "LOG_FORMAT": "json"}
    with GatewayProcess(tmp_path, **settings) as process, process.client() as client:
        client.headers["X-Request-Id"] = 'a "quote"'
        Chat(client, user).streaming()
        process.send(signal.SIGTERM)
        process.exited()
    lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    [line] = [line for line in lines if line["logger"] == "agent_gateway.turns.end_report"]
    assert canonical_uuid(line["request_id"]) == line["request_id"]
