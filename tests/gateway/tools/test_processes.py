"""Tools beside real processes: a gateway that is killed, and a backend over HTTP with and without a token."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from tests.support.agents import KEY
from tests.support.chat import Chat, refused
from tests.support.fakes.mcp_server import COMMAND as ODD
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import Step, answer, call
from tests.support.gateway_process import START_SECONDS, GatewayProcess, environment
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.log_lines import TURNS, kept_lines
from tests.support.paths import ROOT

APP = """
name: x
mode: agent-chat
composition:
  layers:
    - name: prompt
      type: plain.prompt
      config: {user: "${query}"}
    - name: history
    - name: tools
      type: vendor.tools
      config: %s
"""


@pytest.fixture(autouse=True)
def model(provider: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def app_file(folder: Path, tools: str) -> Path:
    path = folder / "app.yaml"
    path.write_text(APP % tools)
    return path


def test_programs_end_when_their_gateway_is_killed(tmp_path: Path, provider: ModelServer) -> None:
    provider.script("killed", answer(call("pid")), "Done.")
    path = app_file(tmp_path, json.dumps({"mcp": {"odd": {"command": ODD}}}))
    with GatewayProcess(tmp_path, MODEL="openai-chat:killed", API_KEY="app-x", APP_FILE=path) as process:
        with process.client("app-x") as client:
            assert Chat(client, "ada").streaming("Do it").answer == "Done."
        programs = [child for child in process.children() if child.cmdline() == ODD]
        assert len(programs) == 1
        process.send(signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(programs[0].pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_function_that_never_returns_does_not_keep_the_process(
    tmp_path: Path, provider: ModelServer, number: signal.Signals
) -> None:
    provider.script("stuck", answer(call("slow")), "Done.")
    function = {"function": "tests.support.tool_functions:slow", "timeout_seconds": 0.2}
    path = app_file(tmp_path, json.dumps({"functions": [function]}))
    with GatewayProcess(tmp_path, MODEL="openai-chat:stuck", API_KEY="app-x", APP_FILE=path) as process:
        with process.client("app-x") as client:
            assert Chat(client, "ada").streaming("Do it").answer == "Done."
        process.send(number)
        process.exited()


@contextmanager
def backend_process(folder: Path, **settings: Any) -> Generator[str]:
    """`agent-gateway backend`: its URL."""
    output = folder / "backend-output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent_gateway", "backend", "--port", "0"],
            cwd=folder,
            env=environment(MODEL="openai-chat:remote", DATA_DIR=folder, **settings),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: re.search(r"running on (http\S+)", output.read_text()), START_SECONDS)
        found = re.search(r"running on (http://[0-9.:]+)", output.read_text())
        assert found is not None
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("tools", "place"),
    [
        ("{functions: ['tests.support.tool_functions:count']}", "functions"),
        ("{mcp: {time: {command: [mcp-server-time]}}}", "mcp.time.command"),
        ("{openapi: {x: {document: /etc/passwd, operations: [a]}}}", "openapi.x.document"),
    ],
)
def test_a_backend_without_a_token_runs_no_code_of_requests(
    tmp_path: Path, provider: ModelServer, tools: str, place: str
) -> None:
    provider.respond("remote", lambda _: answer("never"))
    with (
        backend_process(tmp_path) as url,
        GatewayServer(tmp_path / "data", backend_url=url, app_file=app_file(tmp_path, tools)) as server,
        server.client() as client,
        kept_lines(TURNS) as lines,
    ):
        refused(Chat(client, "ada").post("Do it", response_mode="blocking"), 500, "internal_server_error")
        wait_until(lambda: lines)
    said = f"{place}: only a backend with AGENT_GATEWAY_BACKEND_TOKEN runs programs and functions"
    assert said in lines[0]["cause"]
    assert provider.of("remote") == []


def test_a_backend_with_a_token_does(tmp_path: Path, provider: ModelServer) -> None:
    def step(request: Any) -> Step:
        return answer(*request.results) if request.results else answer(call("count", {"to": 3}))

    provider.respond("remote", step)
    tools = "{functions: ['tests.support.tool_functions:count']}"
    with (
        backend_process(tmp_path, BACKEND_TOKEN="swordfish") as url,
        GatewayServer(
            tmp_path / "data", backend_url=url, backend_token="swordfish", app_file=app_file(tmp_path, tools)
        ) as server,
        server.client() as client,
    ):
        assert Chat(client, "ada").streaming("Do it").answer == "1 2 3"
    provider._makers.pop("remote")
