"""What `app apply` says about tools before any of them runs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.apps.config import AppConfig
from agent_gateway.apps.file import parse_app
from agent_gateway.backend.embedded.app_check import missing_programs, problems, try_servers
from agent_gateway.errors import ConfigError
from tests.support.json_type import Json
from tests.support.paths import ROOT

PLACE = "composition.layers[2].config"
FORM = [{"text-input": {"label": "Choice", "variable": "choice"}}]
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
DOCUMENT: Json = {
    "openapi": "3.1.0",
    "servers": [{"url": "https://api.example.org/v1"}],
    "paths": {"/cities/{id}": {"get": {"operationId": "getCity", "parameters": [ID]}}},
}


def app_of(tools: Json, *, history: bool = True) -> AppConfig:
    layers: list[Json] = [
        {"name": "prompt", "type": "plain.prompt", "config": {"user": "${query}"}},
        {"name": "history" if history else "execution_context"},
        {"name": "tools", "type": "vendor.tools", "config": tools},
    ]
    data = {"name": "x", "user_input_form": FORM, "composition": {"layers": layers}}
    return parse_app(data, None, "app.yaml")


def function(place: str) -> Json:
    return {"functions": [place]}


def api(**more: Any) -> Json:
    return {"openapi": {"cities": {"document": DOCUMENT, "operations": ["getCity"], **more}}}


def program(**more: Any) -> Json:
    return {"mcp": {"time": {"command": ["mcp-server-time"], **more}}}


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        (function("nothing:f"), ".functions[0]: 'nothing:f': there is no module 'nothing'"),
        (function("json:dumbs"), ".functions[0]: 'json:dumbs': the module has no 'dumbs'; did you mean 'dum"),
        (function("json:codecs"), ".functions[0]: 'json:codecs': 'codecs' is no function"),
        (function("json.dumps"), ".functions[0].function: must look like 'package.module:function'"),
        (
            {"functions": ["json:dumps", "pickle:dumps"]},
            ".functions[1]: the tool 'dumps' has the name of one of functions[0]: rename one of them",
        ),
        (
            api(operations=["getCitty"]),
            ".openapi.cities: the document has no operation 'getCitty'; did you mean 'getCity'?",
        ),
        (api(operations=[]), ".openapi.cities.operations: must not be empty"),
        (api(document="/no/file"), ".openapi.cities: /no/file: No such file or directory"),
        (api(document={"swagger": "2.0"}), ".openapi.cities: the document is not OpenAPI 3.x"),
        (api(document=DOCUMENT | {"servers": []}), ".openapi.cities: the document names no server"),
        (api(base_url="https://{region}.example.org"), ".openapi.cities: the document names no server"),
        (
            api(needs_approval=["getcity"]),
            ".openapi.cities.needs_approval[0]: 'getcity' is not one of 'operations'; did you mean 'getCity",
        ),
        (
            program(allow=["convert_time"], needs_approval=["convert"]),
            ".mcp.time.needs_approval[0]: 'convert' is not one of 'allow'",
        ),
        (
            program(allow=["ask_human"]),
            ".mcp.time: the tool 'ask_human' has the name of the tool that asks humans: give one of their",
        ),
        (program(url="https://x"), ".mcp.time: needs either 'command' or 'url'"),
        (program(command=["x", "${query}"]), ".mcp.time.command[1]: ${query} comes from users"),
        (program(needs_approval="${inputs.choice}"), ".mcp.time.needs_approval: ${inputs.choice} comes from"),
        (program(env="${inputs.choice}"), ".mcp.time.env: ${inputs.choice} comes from users"),
        ({"mcp": "${inputs.choice}"}, ".mcp: ${inputs.choice} comes from users"),
        ({"mcp": {"x": {"url": "https://${user_id}/mcp"}}}, ".mcp.x.url: ${user_id} comes from users"),
        (api(base_url="https://${inputs.choice}"), ".openapi.cities.base_url: ${inputs.choice} comes from"),
        (api(document="${query}"), ".openapi.cities.document: ${query} comes from users"),
        (function("${query}"), ".functions[0]: ${query} comes from users"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_its_place(tools: Json, problem: str) -> None:
    found = problems(app_of(tools))
    assert any(one.startswith(f"{PLACE}{problem}") for one in found), found


@pytest.mark.parametrize(
    "tools",
    [
        program(env={"USER_ID": "${user_id}"}, command=["${env:PROGRAM}"]),
        {"mcp": {"x": {"url": "https://${env:HOST}/mcp", "headers": {"X": "Bearer ${inputs.choice}"}}}},
        api(headers={"X-User": "${user_id}"}, needs_approval=True),
        api(base_url="${env:API}", document="${env:DOCUMENT}"),
        function("json:dumps"),
        {},
    ],
)  # fmt: skip
def test_tools_that_can_work_are_accepted(tools: Json) -> None:
    assert problems(app_of(tools)) == []


def test_an_approval_needs_a_history() -> None:
    app = app_of(program(needs_approval=True), history=False)
    [problem] = problems(app)
    assert problem.startswith("composition.layers[2]: a question to a human needs a layer 'history'")


def test_a_program_that_is_not_here_is_only_noted() -> None:
    app = app_of(program(command=["no-such-program"]))
    assert problems(app) == []
    place = f"{PLACE}.mcp.time.command[0]"
    assert missing_programs(app) == [f"{place}: the program 'no-such-program' is not on the PATH here"]
    assert missing_programs(app_of(program())) == []


def test_a_document_in_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "api.yaml"
    path.write_text("openapi: [")
    [problem] = problems(app_of(api(document=str(path))))
    assert problem.endswith("is neither JSON nor YAML")
    path.write_text(json.dumps(DOCUMENT))
    assert problems(app_of(api(document=str(path)))) == []


def test_the_check_of_tools_loads_no_framework() -> None:
    app = app_of(api() | program() | function("json:dumps")).model_dump_json()
    code = (
        "import sys; from agent_gateway.apps.config import AppConfig;"
        "from agent_gateway.backend.embedded.app_check import problems;"
        f"assert problems(AppConfig.model_validate_json({app!r})) == [];"
        "assert not {'pydantic_ai', 'fastmcp', 'mcp'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastmcp", None)
    [problem] = problems(app_of(program()))
    assert problem == f"{PLACE}.mcp: MCP servers need an extra: pip install 'agent-gateway[mcp]'"


@pytest.mark.anyio
async def test_trying_the_servers_says_what_each_has_or_why_not() -> None:
    this = [sys.executable, "-P", str(ROOT / "tests/support/fakes/mcp_server.py")]
    working = app_of({"mcp": {"odd": {"command": this, "env": {"KEY": "${env:KEY}", "WHO": "${user_id}"}}}})
    assert re.fullmatch(r"odd: \d+ tools", await try_servers(working, {"KEY": "k"}))
    assert await try_servers(app_of(function("json:dumps")), {}) == ""
    missing = app_of({"mcp": {"odd": {"command": ["no-such-program"]}}})
    unreadable = app_of(program(timeout_seconds="${env:KEY}"))
    cases: list[tuple[AppConfig, dict[str, str], str]] = [
        (working, {}, "the environment variable KEY is not set"),
        (missing, {}, "the MCP server 'odd' cannot be used"),
        (unreadable, {"KEY": "soon"}, "the config of the layer 'tools'"),
    ]
    for app, environ, why in cases:
        with pytest.raises(ConfigError, match=why):
            await try_servers(app, environ)
