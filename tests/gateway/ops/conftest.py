from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent_gateway import logs
from agent_gateway.cli.commands import app
from tests.support.command import Command, quiet
from tests.support.gateway_server import SECRET_KEY


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command on the test's database, in this process, which is faster."""
    monkeypatch.setattr(logs, "configure", quiet)
    monkeypatch.chdir(tmp_path)
    environ = {
        "AGENT_GATEWAY_DATABASE_URL": database_url,
        "AGENT_GATEWAY_SECRET_KEY": SECRET_KEY,
        "COLUMNS": "200",
    }

    def run(*arguments: str, answer: str = "", **settings: str) -> Result:
        given = {f"AGENT_GATEWAY_{name}": value for name, value in settings.items()}
        return CliRunner().invoke(app, list(arguments), input=answer, env={**environ, **given})

    return run
