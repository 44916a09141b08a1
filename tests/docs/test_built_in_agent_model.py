"""The app files of the page about models are accepted and run, and its table of packages is true."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_gateway.apps.file import load_app_file
from agent_gateway.backend.embedded.app_check import notes, problems
from agent_gateway.errors import FAILURES
from tests.support.chat import Chat
from tests.support.fakes.model_server import serving
from tests.support.fakes.model_steps import answer, call
from tests.support.gateway_server import GatewayServer
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/built-in-agent-model.md").read_text("utf-8")
APPS: list[Any] = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("config", APPS, ids=[app["name"] for app in APPS])
def test_an_app_file_of_the_page_runs(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "app.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    with serving() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("LOCAL_KEY", "k")
        app = load_app_file(path, {"LOCAL_KEY": "k"})
        assert problems(app) + notes(app) == []
        if config["name"] == "City facts":
            provider.script("gpt-5-mini", answer(call("final_output", {"city": "Bonn", "people": 1})))
        with GatewayServer(tmp_path / "data", app_file=path) as server, server.client() as client:
            said = Chat(client, "ada").blocking()["answer"]
    assert said == ('{"city":"Bonn","people":1}' if config["name"] == "City facts" else "Hi there!")


def test_the_packages_of_providers_are_those_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    providers = {name for name, needs in extras.items() if needs == [f"pydantic-ai-slim[{name}]"]}
    told = re.findall(r"^\| `([a-z]+)`.*\| `agent-gateway\[([a-z]+)\]` \|$", PAGE, re.MULTILINE)
    assert {provider for provider, _ in told} == {extra for _, extra in told} == providers


def test_the_codes_of_the_page_exist() -> None:
    codes = {"completion_request_error", "provider_timeout", "agent_run_limit_exceeded", "output_invalid"}
    assert codes <= FAILURES.keys()
    assert [code for code in codes if f"`{code}`" not in PAGE] == []
