"""The examples of the Python client's page are typed, run as printed, and print what is shown."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.console import PRINTED, pattern
from tests.support.gateway_process import environment
from tests.support.gateway_server import GatewayServer
from tests.support.paths import ROOT

PAGE: Final = ROOT / "clients/python/README.md"
EXAMPLE: Final = re.compile(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
BOUND: Final = 100.0


def examples() -> list[tuple[str, str]]:
    """Each program of the page, and the output that is printed below it."""
    return EXAMPLE.findall(PAGE.read_text("utf-8"))


def test_each_program_has_its_output() -> None:
    assert len(examples()) == PAGE.read_text("utf-8").count("```python") >= 7


@pytest.mark.slow
def test_the_examples_print_what_is_shown(tmp_path: Path) -> None:
    with GatewayServer(tmp_path / "data", api_key="app-demo") as server:
        for program, output in examples():
            ran = subprocess.run(
                [sys.executable, "-W", "error", "-c", program.replace(PRINTED, server.url)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=BOUND,
                check=False,
            )
            assert (ran.returncode, ran.stderr) == (0, ""), program
            assert pattern(output).fullmatch(ran.stdout.strip()), f"{program}\n{ran.stdout}"


def test_the_examples_are_typed(tmp_path: Path) -> None:
    files: list[str] = []
    for number, (program, _) in enumerate(examples()):
        (tmp_path / f"example{number}.py").write_text(program)
        files.append(str(tmp_path / f"example{number}.py"))
    (tmp_path / "pyrefly.toml").write_text(
        f'preset = "strict"\nsearch-path = ["{ROOT}/clients/python/src"]\n'
        f'python-interpreter-path = "{sys.executable}"\n'
    )
    command = [sys.executable, "-m", "pyrefly", "check", "--progress-bar=no", "-c", "pyrefly.toml", *files]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
