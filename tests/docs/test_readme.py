"""The documents' sessions, run as printed: `$ ` lines are typed into one shell, `…` stands for anything."""

import re
import subprocess
from pathlib import Path

import pytest

from agent_gateway.settings import Settings
from tests.gateway_server import GatewayServer

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MARK = "<<<next command>>>"


def session(document: Path = README) -> list[tuple[str, str]]:
    """Each command of a document's console blocks, with the output printed below it."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            steps.append((command, output))
    return steps


def pattern(output: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, output.strip().split("…"))), re.DOTALL)


@pytest.mark.parametrize(("name", "least"), [("README.md", 12), ("docs/human-input.md", 10)])
def test_the_session_works_as_printed(tmp_path: Path, name: str, least: int) -> None:
    steps = session(ROOT / name)
    with GatewayServer(tmp_path / "data", api_key="app-demo") as server:
        script = f"\necho; echo '{MARK}'\n".join(command for command, _ in steps)
        script = script.replace("http://127.0.0.1:8000", server.url)
        ran = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    outputs = ran.stdout.split(f"\n{MARK}\n")
    assert len(outputs) == len(steps) >= least, ran.stdout + ran.stderr
    for (command, expected), printed in zip(steps, outputs, strict=True):
        assert pattern(expected).fullmatch(printed.strip()), f"$ {command}\n{printed}"
    assert ran.stderr == ""


def test_the_settings_table_is_complete() -> None:
    table = README.read_text().split("## Settings")[1].split("## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name.lower() for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(Settings.model_fields)
