"""`agent-gateway …` as an operator types it, beside a running gateway."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import Result

from agent_gateway.cli.commands import app
from agent_gateway.errors import ConfigError
from tests.support.gateway_server import SECRET_KEY

BOUND = 60.0
"""Seconds after which a command has failed."""

Command = Callable[..., Result]
"""Runs a command of these words in the process of the test, with settings named without AGENT_GATEWAY_."""


def quiet(style: str, level: str) -> None:
    """In place of `logs.configure`: the logging is that of the test's process."""


def refusal(result: Result) -> str:
    """What a command said that was refused."""
    assert isinstance(result.exception, ConfigError), result.output
    return str(result.exception)


def all_commands() -> list[tuple[list[str], Any]]:
    """Every command and group: the words that are typed, and what they stand for."""
    found: list[tuple[list[str], Any]] = [([], get_command(app))]
    for words, command in found:
        found += [([*words, name], one) for name, one in getattr(command, "commands", {}).items()]
    return found


class Operator:
    """Types commands in a folder, for the gateways of one database."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url

    def try_(self, *arguments: str, answer: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, successful or not."""
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("AGENT_GATEWAY_")}
        settings = {
            "AGENT_GATEWAY_DATABASE_URL": self.database_url,
            "AGENT_GATEWAY_SECRET_KEY": SECRET_KEY,
            "AGENT_GATEWAY_DATA_DIR": str(self.folder / "data"),
        }
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "agent_gateway", *arguments],
            cwd=self.folder,
            env={**inherited, **settings, **environ},
            input=answer,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    def run(self, *arguments: str) -> str:
        """The output of a command that succeeds."""
        done = self.try_(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write(self, name: str, text: str) -> str:
        """A file in the folder; its name."""
        (self.folder / name).write_text(text)
        return name
