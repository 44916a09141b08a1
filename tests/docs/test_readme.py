"""The documents say what is true: their sessions work, the settings are all there are."""

import re
from pathlib import Path

import pytest

from agent_gateway.settings import Settings
from tests.support.console import check_session
from tests.support.gateway_server import GatewayServer
from tests.support.paths import ROOT

README = ROOT / "README.md"


@pytest.mark.parametrize(("name", "least"), [("README.md", 12), ("docs/human-input.md", 10)])
def test_the_commands_of_the_readme_print_the_shown_output(tmp_path: Path, name: str, least: int) -> None:
    with GatewayServer(tmp_path / "data", api_key="app-demo") as server:
        check_session(ROOT / name, server.url, tmp_path, at_least=least)


def test_the_readme_lists_every_setting() -> None:
    table = README.read_text().split("## Settings")[1].split("## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name.lower() for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(Settings.model_fields)
