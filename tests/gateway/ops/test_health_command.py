"""`agent-gateway health`, which containers run to see whether their gateway is alive."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from agent_gateway.cli.health import fault_of
from tests.support.gateway_server import BOUND, GatewayServer

LOCALHOST = "127.0.0.1"
HEAVY = ("fastapi", "sqlalchemy", "pydantic_ai", "uvicorn")
COUNT_IMPORTS = f"""
import sys
from agent_gateway.cli import main
sys.argv = ["agent-gateway", "health"]
try:
    main()
finally:
    print([name for name in {HEAVY!r} if name in sys.modules])
"""


def health(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("AGENT_GATEWAY_")}
    return subprocess.run(
        [sys.executable, *arguments],
        # A proxy is for other machines.
        env=environ | {"http_proxy": "http://127.0.0.1:9"} | settings,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


def test_health_succeeds_while_the_gateway_answers(server: GatewayServer) -> None:
    port = server.url.rsplit(":", 1)[1]
    asked = health("-m", "agent_gateway", "health", "--host", "0.0.0.0", "--port", port)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "alive\n", "")


def test_health_fails_where_nothing_listens(unused_port: int) -> None:
    asked = health("-m", "agent_gateway", "health", AGENT_GATEWAY_PORT=str(unused_port))
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.startswith(f"no answer from {LOCALHOST} port {unused_port}: ")


def test_health_fails_with_wrong_settings_as_every_command_does() -> None:
    asked = health("-m", "agent_gateway", "health", AGENT_GATEWAY_PORT="high")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith("error: AGENT_GATEWAY_PORT: ")


def test_health_fails_when_the_gateway_accepts_and_never_answers() -> None:
    with socket.create_server((LOCALHOST, 0)) as listener:
        fault = fault_of(LOCALHOST, listener.getsockname()[1], seconds=0.2)
    assert fault is not None
    assert "timed out" in fault


def test_health_fails_when_something_else_answers(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", LOCALHOST, "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline().split(" port ")[1].split(" ")[0])
        fault = fault_of(LOCALHOST, port, seconds=BOUND)
        other.terminate()
    assert fault == f"{LOCALHOST} port {port} answers GET /healthz with 404"


def test_health_does_not_import_the_gateway(unused_port: int) -> None:
    """It runs every half minute in each container; importing everything takes seconds of a processor."""
    asked = health("-c", COUNT_IMPORTS, AGENT_GATEWAY_PORT=str(unused_port))
    assert (asked.returncode, asked.stdout) == (1, "[]\n"), asked.stderr
