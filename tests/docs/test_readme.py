"""The README says what is true: its session works, its settings are all there are."""

import re
from pathlib import Path

from agent_gateway.settings import Settings
from tests.docs.session import check_session
from tests.gateway_server import GatewayServer

README = Path(__file__).parents[2] / "README.md"


def test_the_session_works_as_printed(tmp_path: Path) -> None:
    with GatewayServer(tmp_path / "data", api_key="app-demo") as server:
        check_session(README, server.url, tmp_path, at_least=12)


def test_the_settings_table_is_complete() -> None:
    table = README.read_text().split("## Settings")[1].split("## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name.lower() for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(Settings.model_fields)
