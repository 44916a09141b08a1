"""The app files of the page about tools can be applied, and its functions do what they say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_gateway.apps.file import parse_app
from agent_gateway.backend.embedded.app_check import missing_programs, problems
from tests.support.agents import agents_of, steps_of
from tests.support.fakes.model_server import serving
from tests.support.fakes.model_steps import answer, call
from tests.support.human_input import submitted, token_of
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "built-in-agent-tools.md"
EXAMPLES = ROOT / "docs" / "examples" / "tools"
APPS = [
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
]
ENVIRON = {"OPENAI_API_KEY": "k", "GUESTS_TOKEN": "k", "WEATHER_API_KEY": "k"}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the examples are started."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.mark.parametrize("app", APPS, ids=[app["name"] for app in APPS])
def test_the_app_can_be_applied(app: Any) -> None:
    config = parse_app(app, ENVIRON, "app.yaml")
    assert problems(config) == []
    assert missing_programs(config) == []


def test_the_functions_of_the_example_work(tmp_path: Path) -> None:
    [tools] = [layer["config"] for layer in APPS[0]["composition"]["layers"] if layer["name"] == "tools"]
    with serving() as provider, agents_of(tmp_path, provider) as agents:
        chat = agents.app(
            answer(call("price", {"dish": "sushi"})),
            answer(call("price", {"dish": "pizza", "size": "large"})),
            answer(call("order", {"dish": "pizza", "pieces": 2})),
            "It is on its way.",
            tools={"functions": tools["functions"]},
        )
        asked = chat.streaming("Two large pizzas")
        assert [observed for _, _, observed in steps_of(asked)] == [
            "There is no 'sushi' on the menu, only pizza, pasta.",
            "14.25",
            "",
        ]
        done = chat.resumed(submitted(chat, token_of(asked), "approve", comment="")["task_id"])
        assert done.answer == "It is on its way."
        assert agents.requests(chat)[-1].results[-1] == "2 × pizza will be ready in 20 minutes."
