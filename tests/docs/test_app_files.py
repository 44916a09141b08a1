"""The app files in the documents work, with backends of both generations that are as strict as real ones."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chat import Chat
from tests.support.fakes.script import Script, echo, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.fakes.strict import Generation
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.human_input import asked, submitted, token_of
from tests.support.json_type import Json
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
INPUTS = {"tone": "brief", "home": "Bonn"}
NAME, QUESTIONS = "A day in Lisbon", ["Will it rain?", "Where to eat?"]


def blocks(page: str) -> list[Any]:
    """The YAML of a page: whole app files, and layers to be put into one."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", _text(page), re.DOTALL)]


def _text(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def app(*more: Json) -> Json:
    """The example, with these layers in place of those of their names, or added."""
    [example] = [block for block in blocks("app-file.md") if isinstance(block, dict)]
    layers: list[Json] = example["composition"]["layers"]
    for layer in more:
        names = [other["name"] for other in layers]
        place = names.index(layer["name"]) if layer["name"] in names else len(layers)
        layers[place : place + 1] = [layer]
    assert isinstance(example, dict)
    return example


def layers(page: str) -> list[Json]:
    """Layers that a page shows by themselves."""
    return [layer for block in blocks(page) if isinstance(block, list) for layer in block]


def model(body: Json) -> Script:
    """As the model of the example's runs: it names, suggests or echoes."""
    said = query_of(body)
    if not said.startswith("User: "):
        return echo(body)
    prefix = next(
        layer["config"]["prefix"] for layer in body["composition"]["layers"] if layer["name"] == "prompt"
    )
    return script(text(NAME if prefix.startswith("Name") else "\n".join(QUESTIONS)), succeed())


@pytest.fixture(params=[1, 2], ids=["schema1", "schema2"])
def backend(request: pytest.FixtureRequest) -> Iterator[ScriptedBackend]:
    with ScriptedBackend() as backend:
        backend.speaks = request.param
        backend.vendor = "vendor."
        backend.script = model
        yield backend


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-model")
    monkeypatch.setenv("WEATHER_API_KEY", "key-of-the-weather")


def serving(folder: Path, backend: ScriptedBackend, config: Json) -> GatewayServer:
    path = folder / "app.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return GatewayServer(folder / "data", backend_url=backend.url, app_file=path)


def failed(backend: ScriptedBackend) -> list[str | None]:
    """The errors of all runs."""
    return [run.error for run in backend.runs.values() if run.status == "failed"]


@pytest.mark.usefixtures("environ")
def test_the_example_works_unchanged(backend: ScriptedBackend, tmp_path: Path) -> None:
    with serving(tmp_path, backend, app()) as server, server.client() as client:
        chat = Chat(client, "ada")
        first = chat.blocking("Where to go?", inputs=INPUTS)
        assert first["answer"] == "You said: Where to go?."
        again = chat.blocking("And then?", conversation_id=first["conversation_id"])
        assert again["answer"] == "You said: And then?."
        # Its auxiliary runs work as well.
        wait_until(lambda: chat.conversations()["data"][0]["name"] == NAME)
        suggested = client.get(f"/messages/{again['message_id']}/suggested", params={"user": "ada"})
        assert suggested.json()["data"] == QUESTIONS
    assert failed(backend) == []
    assert {post.body["composition"]["schema_version"] for post in backend.requests} == {backend.speaks}
    assert len(backend.requests) == len(backend.runs) == 4
    sent = {layer["name"]: layer["config"] for layer in backend.requests[0].body["composition"]["layers"][:1]}
    assert "Your tone is brief." in sent["agent_soul_prompt"]["prefix"]


@pytest.mark.usefixtures("environ")
@pytest.mark.parametrize("other", [1, 2])
def test_the_example_still_works_after_a_change_of_generation(
    backend: ScriptedBackend, tmp_path: Path, other: Generation
) -> None:
    with serving(tmp_path, backend, app()) as server, server.client() as client:
        chat = Chat(client, "ada")
        first = chat.blocking("Where to go?", inputs=INPUTS)
        wait_until(lambda: len(backend.runs) == 2)
        backend.speaks = other
        again = chat.blocking("And then?", conversation_id=first["conversation_id"])
        assert again["answer"] == "You said: And then?."
    assert failed(backend) == []


@pytest.mark.usefixtures("environ")
def test_the_user_prompt_with_files_works(backend: ScriptedBackend, tmp_path: Path) -> None:
    [prompt] = layers("app-file.md")
    with serving(tmp_path, backend, app(prompt)) as server, server.client() as client:
        file = {"type": "image", "transfer_method": "remote_url", "url": "https://x.test/a.png"}
        turn = Chat(client, "ada").blocking("What is this?", inputs=INPUTS, files=[file])
        assert turn["answer"] == "You said: What is this?."
    config = backend.requests[0].body["composition"]["layers"][1]["config"]
    assert [entry["url"] for entry in config["files"]] == ["https://x.test/a.png"]


@pytest.mark.usefixtures("environ")
def test_the_ask_human_layer_works_with_a_schema_1_backend(backend: ScriptedBackend, tmp_path: Path) -> None:
    [layer] = layers("human-input.md")
    with serving(tmp_path, backend, app(layer)) as server, server.client() as client:
        chat = Chat(client, "ada")
        if backend.speaks == 2:
            assert chat.blocking("Hi", inputs=INPUTS)["answer"] == "You said: Hi."
        else:
            heard = asked(chat, backend, "Hi", inputs=INPUTS)
            assert chat.resumed(submitted(chat, token_of(heard))["task_id"]).kinds[-1] == "message_end"
    assert failed(backend) == []


@pytest.mark.parametrize("page", [path.name for path in sorted(DOCS.glob("*.md"))])
def test_every_example_is_tested(page: str) -> None:
    """A new example must be tested as well."""
    known = {
        "app-file.md": 2,
        "bring-your-own-agent.md": 1,
        "built-in-agent.md": 1,
        "built-in-agent-model.md": 4,
        "built-in-agent-tools.md": 2,
        "human-input.md": 1,
    }
    assert len(blocks(page)) == known.get(page, 0)
