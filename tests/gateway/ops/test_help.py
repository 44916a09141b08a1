"""Help, version and completion of the command line come at once: they import nothing they do not need."""

import json
import subprocess
import sys
from importlib.metadata import version

from tests.support.command import all_commands
from tests.support.gateway_process import environment
from tests.support.gateway_server import BOUND

HEAVY = (
    *("sqlalchemy", "sqlmodel", "alembic", "fastapi", "uvicorn", "pydantic_ai", "asyncpg", "rich"),
    *("httpx", "agent_gateway_client"),
)
RUN_ALL = f"""
import contextlib, io, json, sys
from agent_gateway.cli import main
said = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["agent-gateway", *arguments]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            main()
        except SystemExit as end:
            code = end.code
    said.append([code, output.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]])
print(json.dumps(said))
"""


def run(*arguments: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**environment(), **more},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    return done.stdout


def test_help_of_every_command_imports_no_library_that_it_does_not_need() -> None:
    asked = [["--version"], *([*words, "--help"] for words, _ in all_commands())]
    said = json.loads(run("-c", RUN_ALL, json.dumps(asked)))
    assert [(code, imported) for code, _, imported in said] == [(0, [])] * len(asked)
    assert said[0][1] == f"agent-gateway {version('agent-gateway')}\n"
    for words, (_, output, _) in zip(asked[1:], said[1:], strict=True):
        assert output.startswith(" ".join(["Usage: agent-gateway", *words[:-1]]) + " ")


def test_a_shell_completes_commands_and_options_without_those_libraries() -> None:
    count = f"print('heavy', [name for name in {HEAVY!r} if name in sys.modules])"
    ask = f"import sys, agent_gateway.cli as cli\ntry: cli.main()\nfinally: {count}"
    for typed, offered in {
        "agent-gateway ": {"app", "serve", "health"},
        "agent-gateway key ": {"create", "list", "revoke"},
    }.items():
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
        said = run("-c", ask, _AGENT_GATEWAY_COMPLETE="complete_bash", **words)
        assert offered <= set(said.split())
        assert said.endswith("heavy []\n")
    assert "complete -o default -F" in run("-m", "agent_gateway", "--show-completion", "bash")
