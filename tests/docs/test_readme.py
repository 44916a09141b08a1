"""The documents say what is true: their sessions work, the settings are all there are."""

import re
import subprocess
from pathlib import Path

import pytest

from agent_gateway.settings import Settings
from tests.support.console import check_session
from tests.support.gateway_server import GatewayServer
from tests.support.paths import ROOT

README = ROOT / "README.md"


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    """A folder with what the README has installed into the project's."""
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    client = ROOT / "clients/typescript"
    if not (client / "dist").exists():
        subprocess.run(["npm", "run", "build"], cwd=client, capture_output=True, check=True, timeout=100)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/agent-gateway-client").symlink_to(client)
    return tmp_path


@pytest.mark.parametrize(("name", "least"), [("README.md", 15), ("docs/human-input.md", 10)])
def test_the_commands_of_the_readme_print_the_shown_output(
    project_folder: Path, name: str, least: int
) -> None:
    tmp_path = project_folder
    with GatewayServer(tmp_path / "data", api_key="app-demo") as server:
        check_session(ROOT / name, server.url, tmp_path, at_least=least)


def test_the_readme_lists_every_setting() -> None:
    table = README.read_text().split("## Settings")[1].split("## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name.lower() for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(Settings.model_fields)
