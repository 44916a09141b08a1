"""`agent-gateway check`: each point is tried for real, and nothing is changed."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.command import Command
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, StartGateway
from tests.support.limited_role import administer, limited_role
from tests.support.rows import counts

TOKEN = "swordfish"
POINTS = [
    "settings",
    "app file",
    "secret key",
    "database",
    "schema",
    "file store",
    "backend",
    "model",
    "traces",
]


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    with ScriptedBackend(token=TOKEN) as backend:
        yield backend


def found(result: Result) -> dict[str, tuple[str, str]]:
    """Point → ok or WRONG, and what was said; each point has one line, and there is no secret."""
    lines = [re.fullmatch(r"([a-z ]+): +(ok|WRONG) +(\S.*)", line) for line in result.stdout.splitlines()]
    points = {line[1]: (line[2], line[3]) for line in lines if line}
    assert len(points) == len(lines)
    assert result.exit_code == int("WRONG" in {state for state, _ in points.values()})
    assert result.stderr == ""
    assert TOKEN not in result.stdout
    return points


def wrong(result: Result) -> dict[str, str]:
    return {point: said for point, (state, said) in found(result).items() if state == "WRONG"}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_all_points_are_good_and_nothing_is_changed(
    command: Command, database_url: str, backend: ScriptedBackend, tmp_path: Path
) -> None:
    (tmp_path / "app.yaml").write_text("name: x\n")
    (tmp_path / "store").mkdir()
    backend.speaks = 2
    before, files = counts(database_url), files_in(tmp_path)
    checked = found(
        command(
            "check",
            APP_FILE="app.yaml",
            BACKEND_URL=backend.url,
            BACKEND_TOKEN=TOKEN,
            FILES_URL=f"file://{tmp_path}/store",
        )
    )
    assert [(point, state) for point, (state, _) in checked.items()] == [(point, "ok") for point in POINTS]
    assert checked["backend"][1] == f"{backend.url}: reachable, speaks schema 2, accepts the token"
    assert checked["schema"][1] == "current; all tables can be written"
    assert counts(database_url) == before
    assert files_in(tmp_path) - files <= {"gateway.db-wal", "gateway.db-shm"}
    assert backend.requests == []
    assert not logging.root.manager.disable


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("token", "said"),
    [("another", "TOKEN is not the one that it expects"), ("", "TOKEN is not set, and it wants one")],
)
def test_a_token_that_the_backend_refuses_is_told(
    command: Command, backend: ScriptedBackend, token: str, said: str
) -> None:
    checked = wrong(command("check", BACKEND_URL=backend.url, BACKEND_TOKEN=token))
    assert list(checked) == ["backend"]
    assert checked["backend"].endswith(f"it answers 401: AGENT_GATEWAY_BACKEND_{said}")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_a_look_at_a_backend_cannot_tell_is_said(
    command: Command, fake: ScriptedBackend, server: GatewayServer, unused_port: int
) -> None:
    assert "asks for no token here" in found(command("check", BACKEND_URL=fake.url))["backend"][1]
    # A web server that knows no such path answers as a backend does that knows no such run.
    assert "may be another kind of server" in found(command("check", BACKEND_URL=server.url))["backend"][1]
    away = wrong(command("check", BACKEND_URL=f"http://127.0.0.1:{unused_port}"))
    assert "ConnectionRefusedError: see whether it runs" in away["backend"]


@pytest.mark.parametrize("empty_database_url", ["postgres"], indirect=True)
def test_a_schema_that_is_behind_is_told_with_the_command_to_run(
    command: Command, empty_database_url: str
) -> None:
    assert wrong(command("check", DATABASE_URL=empty_database_url)) == {
        "schema": "it is older than this release expects: run `agent-gateway migrate`"
    }


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_rights_that_the_role_lacks_are_found(command: Command, database_url: str) -> None:
    """Each table is tried, although nothing is written."""
    with limited_role(database_url, 5) as role:
        assert wrong(command("check", DATABASE_URL=role.url)) == {}
        administer(database_url, f"REVOKE DELETE ON outbox FROM {role.name}")
        checked = wrong(command("check", DATABASE_URL=role.url))
        assert list(checked) == ["schema"]
        assert "InsufficientPrivilege" in checked["schema"]
        administer(database_url, f"ALTER ROLE {role.name} SET default_transaction_read_only = on")
        assert "can only be read" in wrong(command("check", DATABASE_URL=role.url))["database"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_another_secret_key_than_that_of_the_others_is_found(
    command: Command, start_gateway: StartGateway
) -> None:
    start_gateway()
    assert wrong(command("check")) == {}
    assert "with another AGENT_GATEWAY_SECRET_KEY" in wrong(command("check", SECRET_KEY="x" * 32))["schema"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_each_fault_is_found_though_there_are_others(
    command: Command, tmp_path: Path, unused_port: int
) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nmode: loud")
    (tmp_path / "file").write_text("in the way")
    checked = wrong(
        command(
            "check",
            APP_FILE="bad.yaml",
            SECRET_KEY="short",
            DATABASE_URL=f"postgresql://ann:{TOKEN}@127.0.0.1:{unused_port}/gateway",
            FILES_URL=f"file://{tmp_path}/file/below",
            MODEL="opnai:gpt-5-mini",
        )
    )
    assert list(checked) == ["app file", "secret key", "database", "file store", "model"]
    assert "mode" in checked["app file"]
    assert "too short" in checked["secret key"]
    assert f"127.0.0.1:{unused_port}/gateway: no connection" in checked["database"]
    assert "opnai" in checked["model"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_first_start_is_foreseen_and_not_made(command: Command, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    checked = found(command("check", DATABASE_URL="", SECRET_KEY="", DATA_DIR="gateway/data"))
    for point in ("secret key", "database", "file store"):
        assert "the first start makes" in checked[point][1]
    assert list((tmp_path / "gateway").iterdir()) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_wrong_settings_are_one_line_too(command: Command) -> None:
    assert wrong(command("check", BAKEND_URL="x")) == {
        "settings": "AGENT_GATEWAY_BAKEND_URL in the environment is no setting: the nearest is "
        "AGENT_GATEWAY_BACKEND_URL; nothing else was looked at"
    }


@pytest.mark.parametrize(
    ("servers", "state", "said"),
    [
        ("time: {command: [mcp-server-time], allow: [convert_time]}", "ok", "time: 1 tool"),
        ("time: {command: ['true']}", "WRONG", "the MCP server 'time' cannot be used: "),
        ("time: {command: [mcp-server-time], allow: [x]}", "WRONG", "the MCP server 'time' has no tool 'x'"),
    ],
)
def test_the_servers_of_tools_are_tried(
    command: Command, tmp_path: Path, servers: str, state: str, said: str
) -> None:
    app = {"prompt": "{user: '${query}'}", "history": "{}", "tools": f"{{mcp: {{{servers}}}}}"}
    layers = [f"{{name: {name}, config: {config}}}" for name, config in app.items()]
    (tmp_path / "app.yaml").write_text(f"name: x\ncomposition: {{layers: [{', '.join(layers)}]}}\n")
    points = found(command("check", APP_FILE="app.yaml"))
    assert list(points) == [*POINTS[:-1], "tools", "traces"]
    assert points["tools"][0] == state
    assert points["tools"][1].startswith(said)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_model_of_the_app_file_is_named(command: Command, tmp_path: Path) -> None:
    """It answers, whatever AGENT_GATEWAY_MODEL says."""
    layers = "[{name: prompt, config: {user: '${query}'}}, {name: llm, config: {model: 'openai:gpt-5-mini'}}]"
    (tmp_path / "app.yaml").write_text(f"name: x\ncomposition: {{layers: {layers}}}\n")
    assert found(command("check", APP_FILE="app.yaml"))["model"][1].startswith("openai:gpt-5-mini: ")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_all_mistakes_of_an_app_file_are_in_its_line(command: Command, tmp_path: Path) -> None:
    layers = "[{name: prompt, config: {user: '${query}', prefx: x}}, {name: histroy}]"
    (tmp_path / "app.yaml").write_text(f"name: x\ncomposition: {{layers: {layers}}}\n")
    said = wrong(command("check", APP_FILE="app.yaml"))["app file"]
    assert [part.partition(": ")[0] for part in said.split(" | ")[1:]] == [
        "composition.layers[0].config.prefx",
        "composition.layers[1].name",
    ]
