"""What the commands about apps and keys print, and what they refuse; in this process, which is faster."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent_gateway import logs
from agent_gateway.cli.commands import app as commands
from tests.support.command import Command, all_commands, quiet, refusal
from tests.support.gateway_server import SECRET_KEY
from tests.support.rows import apply_app


def test_apps_and_keys_are_listed(command: Command, database_url: str) -> None:
    assert command("app", "list").output.split() == [
        *("APP", "NAME", "MODE", "VERSION", "CHANGED", "KEYS", "CONVERSATIONS")
    ]
    apply_app(database_url, "b-app", name="B\nApp")
    apply_app(database_url, "a-app", limits={"concurrent_turns": 3})
    apply_app(database_url, "a-app", on_change="follow", limits={"concurrent_turns": 3})
    command("key", "create", "a-app", "--label", "one")
    command("key", "create", "a-app", "--expires", "1")
    _, first, second = command("app", "list").output.splitlines()
    day = r"\d{4}-\d\d-\d\d \d\d:\d\dZ"
    assert re.fullmatch(rf"a-app  Demo agent  chat  2 +{day}  2 +0", first)
    assert re.fullmatch(rf"b-app  B App +chat  1 +{day}  0 +0", second)
    shown = command("app", "show", "a-app").output
    for part in ("Demo agent", "version:       2 (", "follow", "concurrent_turns 3", "keys:          2"):
        assert part in shown
    _, one, two = command("key", "list", "a-app").output.splitlines()
    assert re.fullmatch(rf"[0-9a-f-]{{36}}  one +works  {day}  never +never", one)
    assert re.fullmatch(rf"[0-9a-f-]{{36}}  - +works  {day}  {day}  never", two)
    key_id = one.split()[0]
    assert command("key", "revoke", key_id.upper()).output == f"{key_id}: revoked\n"
    assert command("key", "revoke", key_id).output == f"{key_id}: was revoked before\n"
    assert "revoked" in command("key", "list", "a-app").output
    assert "keys:          1" in command("app", "show", "a-app").output


def test_applying_an_unchanged_app_makes_no_version(command: Command, tmp_path: Path) -> None:
    """The name of the file does not matter once the file itself names its app."""
    file = tmp_path / "my-app.yaml"
    file.write_text("name: x")
    assert command("app", "apply", "my-app.yaml").output.startswith("my-app: created, version 1;")
    file.write_text("# A remark\nmode: chat\nname: 'x'")
    assert command("app", "apply", "my-app.yaml").output == "my-app: unchanged, version 1\n"
    file.write_text("name: x\ndescription: y")
    assert command("app", "apply", "my-app.yaml").output == "my-app: changed, version 2\n"
    (tmp_path / "other.yaml").write_text(command("app", "export", "my-app").output)
    assert command("app", "apply", "other.yaml").output == "my-app: unchanged, version 2\n"
    file.write_text("name: x")
    assert command("app", "apply", "my-app.yaml").output == "my-app: changed, version 3\n"


def test_a_key_is_shown_once_and_its_hash_is_all_that_is_kept(command: Command, tmp_path: Path) -> None:
    (tmp_path / "my_app.yaml").write_text("name: x")
    command("app", "apply", "my_app.yaml")
    created = command("key", "create", "my-app", "--label", "mine")
    key = created.stdout.strip()
    assert re.fullmatch(r"app-[A-Za-z0-9_-]{43}", key)
    assert key not in command("key", "list", "my-app").output


def test_keys_of_another_secret_are_marked_in_the_list(command: Command, database_url: str) -> None:
    apply_app(database_url, "an-app")
    command("key", "create", "an-app")
    other = SECRET_KEY[::-1]
    command("key", "create", "an-app", SECRET_KEY=other)
    command("key", "create", "an-app", "--expires", "1", SECRET_KEY=other)
    listed = command("key", "list", "an-app").output
    assert [re.split(" {2,}", line)[2] for line in listed.splitlines()[1:]] == [
        *("works", "other SECRET_KEY", "other SECRET_KEY")
    ]
    for line in listed.splitlines()[2:]:
        command("key", "revoke", line.split()[0])
    listed = command("key", "list", "an-app", SECRET_KEY=other).output
    assert [re.split(" {2,}", line)[2] for line in listed.splitlines()[1:]] == [
        *("other SECRET_KEY", "revoked", "revoked")
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("key", "create", "nothing", "--label", "AGENT_GATEWAY_API_KEY"), "is for the key that"),
        (("app", "show", "nothing"), "no app 'nothing'"),
        (("app", "export", "nothing"), "no app 'nothing'"),
        (("app", "delete", "nothing", "--yes"), "no app 'nothing'"),
        (("app", "delete", "default", "--yes"), "cannot be deleted"),
        (("key", "create", "nothing"), "no app 'nothing'"),
        (("key", "list", "nothing"), "no app 'nothing'"),
        (("key", "revoke", "nothing"), "no key 'nothing'"),
        (("key", "revoke", "01a204ae-18e5-737d-918a-52188975f73a"), "no key '01a204ae"),
        (("app", "apply", "nowhere.yaml"), "cannot read"),
        (("app", "apply", "bad.yaml"), "mode: "),
        (("app", "apply", "Städte!.yaml"), "cannot be a slug"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_wrong_commands_are_refused_in_one_line(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "bad.yaml").write_text("name: x\nmode: loud")
    (tmp_path / "Städte!.yaml").write_text("name: x")
    assert said in refusal(command(*arguments))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_deleting_asks_for_confirmation(command: Command, database_url: str) -> None:
    apply_app(database_url, "my-app")
    asked = command("app", "delete", "my-app", answer="n\n")
    assert (asked.exit_code, "0 conversations" in asked.output) == (1, True)
    assert "my-app" in command("app", "list").output
    assert "deleted" in command("app", "delete", "my-app", answer="y\n").output
    assert "my-app" not in command("app", "list").output


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_unset_variable_is_reported_and_is_no_error(command: Command, tmp_path: Path) -> None:
    (tmp_path / "my-app.yaml").write_text(
        "name: x\ncomposition: {layers: [{name: prompt, config: {user: '${env:NOT_SET_HERE}'}}]}"
    )
    applied = command("app", "apply", "my-app.yaml")
    assert (applied.exit_code, "NOT_SET_HERE is not set here" in applied.stderr) == (0, True)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_app_with_parts_the_embedded_agent_ignores_is_not_applied(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a backend of its own the same file is that backend's business."""
    (tmp_path / "my-app.yaml").write_text(
        "name: x\n"
        "composition:\n"
        "  layers:\n"
        "    - {name: prompt, config: {user: '${query}', sufix: x}}\n"
        "    - {name: llm, type: vendor.llm, config: {model: 'opnai:gpt-5-mini'}}\n"
        "    - {name: a, type: vendor.unheard_of}\n"
    )
    refused = refusal(command("app", "apply", "my-app.yaml"))
    assert "AGENT_GATEWAY_BACKEND_URL is not set" in refused
    assert "composition.layers[0].config.sufix: the embedded agent has no such key" in refused
    assert "composition.layers[2].type: the embedded agent has no layer 'vendor.unheard_of'" in refused
    assert "no provider 'opnai' is known; did you mean 'openai'?" in refused
    assert "my-app" not in command("app", "list").output
    monkeypatch.setenv("AGENT_GATEWAY_BACKEND_URL", "http://127.0.0.1:1")
    assert "created" in command("app", "apply", "my-app.yaml").output


@pytest.mark.parametrize("empty_database_url", ["postgres"], indirect=True)
def test_an_outdated_schema_is_reported(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", quiet)
    environ = {"AGENT_GATEWAY_DATABASE_URL": empty_database_url}
    assert "agent-gateway migrate" in refusal(CliRunner().invoke(commands, ["app", "list"], env=environ))


ELSEWHERE = ("check", "doctor", "openapi")
"""`check` says it in a finding (test_check_command.py); the other two need no settings."""


@pytest.mark.parametrize(
    ("words", "form"),
    [
        pytest.param(words, form, id=" ".join(words))
        for words, form in all_commands()
        if not hasattr(form, "commands") and words[0] not in ELSEWHERE
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_every_command_refuses_a_mistyped_variable(
    command: Command, tmp_path: Path, words: list[str], form: Any
) -> None:
    """What it is about has the form of an id, of a slug, and of the name of a file."""
    about = "01a204ae-18e5-737d-918a-52188975f73a"
    (tmp_path / about).write_text("name: x")
    arguments = [about for one in form.params if one.param_type_name == "argument" and one.required]
    assert refusal(command(*words, *arguments, BAKEND_URL="x")) == (
        "AGENT_GATEWAY_BAKEND_URL in the environment is no setting: the nearest is AGENT_GATEWAY_BACKEND_URL"
    )
