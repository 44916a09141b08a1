"""docs/api.md: every call of it prints what it says, and no route is left out."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from agent_gateway.app import create_app
from agent_gateway.settings import Settings
from tests.support.console import check_session, commands, write_programs
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_server import GatewayServer
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "api.md"


@pytest.mark.slow
def test_every_call_prints_the_output_of_the_page(tmp_path: Path) -> None:
    with GatewayServer(tmp_path / "data", api_key="app-demo") as server:
        check_session(PAGE, server.url, tmp_path, at_least=40)


def test_the_client_program_of_the_page_resumes_after_a_cut(tmp_path: Path) -> None:
    [path] = write_programs(PAGE, tmp_path)
    with (
        GatewayServer(tmp_path / "data", api_key="app-demo") as server,
        http_proxy(server.url, [1500, 900]) as proxy,
    ):
        ran = subprocess.run(
            ["node", str(path)],
            env={"PATH": os.environ["PATH"], "URL": proxy.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.stdout == "2 + 2 = 4. I am the demo agent, and my tools told me so.\n", ran.stderr
        assert len(proxy.heads) == 3


def test_the_page_calls_every_route() -> None:
    """The probes aside, which are the operator's."""
    typed = "\n".join(command for command, _ in commands(PAGE.read_text("utf-8")))
    for path in create_app(Settings.model_construct()).openapi()["paths"]:
        if path not in ("/healthz", "/readyz"):
            wanted = re.sub(r"\\{\w+\\}", r"[^/\\n]+", re.escape(path))
            assert re.search(rf"\$URL{wanted}[\s\"?]", typed), f"docs/api.md does not call {path}"
