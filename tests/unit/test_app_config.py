"""App files: how they are read, how mistakes are reported, and what the store keeps."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.apps.config import AppConfig, AppMode, default_app
from agent_gateway.apps.file import load_app_file, parse_app
from agent_gateway.errors import ConfigError
from tests.support.paths import ROOT

FULL = """
name: City guide
description: Knows cities.
tags: [travel]
author_name: Ada
site: {title: The guide, icon_type: image, icon_url: "https://x.test/guide.png"}
mode: agent-chat
tenant_id: tenant-1
agent_id: guide-1
opening_statement: Where to?
suggested_questions: ["Berlin?", "Paris?"]
user_input_form:
  - text-input: {label: City, variable: city, required: true, max_length: 48, default: ""}
  - paragraph: {label: About you, variable: about}
  - select: {label: Tone, variable: tone, options: [kind, brief], default: kind}
  - number: {label: Age, variable: age, required: false}
  - file-list: {label: Pictures, variable: pictures, allowed_file_types: [image]}
composition:
  schema_version: 1
  layers:
    - {name: soul, type: plain.prompt, config: {prefix: "You know ${inputs.city}. Be ${inputs.tone}."}}
    - {name: user, type: plain.prompt, config: {user: "${query}"}}
    - {name: history, type: pydantic_ai.history}
    - name: llm
      type: vendor.plugin.llm
      deps: {history: history}
      metadata: {note: "kept"}
      config: {credentials: {api_key: "${env:MODEL_KEY}"}, empty: null}
    - {name: nothing, type: vendor.nothing, config: null}
"""
ENVIRON = {"MODEL_KEY": "sk-very-secret"}


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> AppConfig:
    path = tmp_path / "app.yaml"
    path.write_text(text, "utf-8")
    return load_app_file(path, ENVIRON if environ is None else environ)


def refusal(data: Any, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        parse_app(data, ENVIRON if environ is None else environ, "app.yaml")
    return str(error.value)


def with_config(config: Any, **more: Any) -> dict[str, Any]:
    return {"name": "x", "composition": {"layers": [{"name": "a", "config": config}]}, **more}


def feature(config: Any) -> dict[str, Any]:
    return {"composition": {"layers": [{"name": "a", "config": config}]}}


def test_compositions_of_auxiliary_runs_may_use_the_answer() -> None:
    after = feature("${query} ${answer}")
    data = {"name": "x", "naming": after, "suggested_questions_after_answer": {"enabled": True, **after}}
    config = parse_app(data, {}, "app.yaml")
    assert config.naming is not None
    assert config.naming.composition == config.suggested_questions_after_answer.composition
    assert AppConfig.model_validate_json(config.model_dump_json()) == config


def test_a_full_file_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, FULL)
    assert (config.name, config.mode, config.tenant_id, config.agent_id) == (
        "City guide",
        "agent-chat",
        "tenant-1",
        "guide-1",
    )
    assert config.suggested_questions == ["Berlin?", "Paris?"]
    assert config.input_names == {"city", "about", "tone", "age", "pictures"}
    assert [layer.name for layer in config.composition.layers] == [
        "soul",
        "user",
        "history",
        "llm",
        "nothing",
    ]


def test_absent_keys_stay_absent_and_extras_of_the_form_are_kept(tmp_path: Path) -> None:
    dumped = load(tmp_path, FULL).model_dump(mode="json")
    layers = dumped["composition"]["layers"]
    assert layers[2] == {"name": "history", "type": "pydantic_ai.history"}
    assert layers[4] == {"name": "nothing", "type": "vendor.nothing", "config": None}
    assert layers[3]["config"]["empty"] is None
    form = dumped["user_input_form"]
    assert form[0]["text-input"]["max_length"] == 48
    assert form[1] == {"paragraph": {"label": "About you", "variable": "about", "required": False}}
    assert form[4]["file-list"]["allowed_file_types"] == ["image"]


def test_the_stored_app_is_equal_and_holds_no_environment_values(tmp_path: Path) -> None:
    config = load(tmp_path, FULL)
    stored = config.model_dump_json()
    assert AppConfig.model_validate_json(stored) == config
    assert AppConfig.model_validate_json(stored).model_dump_json() == stored
    assert "${env:MODEL_KEY}" in stored
    assert "sk-very-secret" not in stored


def test_layers_of_the_newest_schema_have_only_name_and_config() -> None:
    layers = [{"name": "user", "config": {"user": "${query}"}}]
    config = parse_app({"name": "x", "composition": {"schema_version": 2, "layers": layers}}, {}, "app.yaml")
    assert config.model_dump(mode="json")["composition"] == {"schema_version": 2, "layers": layers}


@pytest.mark.parametrize(
    "where", ["composition", "naming.composition", "suggested_questions_after_answer.composition"]
)
def test_an_unknown_schema_version_is_refused(where: str) -> None:
    wrong: Any = {"schema_version": 3, "layers": [{"name": "a"}]}
    key, _, nested = where.partition(".")
    data = {"name": "x", key: {nested: wrong} if nested else wrong}
    with pytest.raises(ConfigError, match=f"{where}.schema_version: must be 1 or 2"):
        parse_app(data, {}, "app.yaml")


def test_a_file_without_a_composition_gets_the_default_one(tmp_path: Path) -> None:
    config = load(tmp_path, "name: Mine", {})
    assert config.composition == default_app().composition
    assert (config.mode, config.tenant_id, config.agent_id) == ("chat", "default", "")


@pytest.mark.parametrize("mode", ["chat", "agent-chat", "agent"])
def test_the_default_app_passes_its_own_check(mode: AppMode) -> None:
    config = default_app(mode)
    assert config.mode == mode
    assert parse_app(json.loads(config.model_dump_json()), {}, "default") == config
    assert [layer.name for layer in config.composition.layers] == [
        "agent_soul_prompt",
        "agent_app_user_prompt",
        "execution_context",
        "history",
        "llm",
    ]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (None, "must be a mapping"),
        ([], "must be a mapping"),
        ({}, "name: is missing"),
        ({"name": ""}, "name: "),
        ({"name": 3}, "name: Input should be a valid string"),
        ({"name": "x", "colour": 1}, "colour: unknown key"),
        ({"name": "x", "files_prompt": "${query}"}, "files_prompt: unknown placeholder '${query}'"),
        ({"name": "x", "file_upload": {"allowed_file_types": ["film"]}}, "file_upload.allowed_file_types[0]"),
        ({"name": "x", "file_upload": {"number_limits": 0}}, "file_upload.number_limits"),
        ({"name": "x", "mode": "workflow"}, "mode: Input should be 'chat', 'agent-chat' or 'agent'"),
        ({"name": "x", "composition": {"layers": []}}, "composition.layers: "),
        (
            {"name": "x", "composition": {"layers": [{"name": "a", "confg": {}}]}},
            "composition.layers[0].confg: unknown key",
        ),
        ({"name": "x", "composition": {"layers": [{"type": "a"}]}}, "composition.layers[0].name: is missing"),
        (
            {"name": "x", "composition": {"layers": [{"name": "a"}, {"name": "a"}]}},
            "composition: two layers are named 'a'",
        ),
        (
            {"name": "x", "composition": {"layers": [{"name": "a", "deps": {"k": "b"}}, {"name": "b"}]}},
            "layer 'a' depends on 'b', but no earlier layer has that name",
        ),
        (
            {"name": "x", "user_input_form": [{"select": {"label": "L", "variable": "v"}}]},
            "user_input_form[0].select needs a list of options",
        ),
        (
            {"name": "x", "user_input_form": [{"number": {"label": "L"}}]},
            "user_input_form[0].number.variable: is missing",
        ),
        ({"name": "x", "user_input_form": [{}]}, "user_input_form[0] must have exactly one key"),
        (
            {"name": "x", "user_input_form": [{"number": {"label": "L", "variable": "v"}}] * 2},
            "two fields of user_input_form have the variable 'v'",
        ),
        (with_config("${quary}"), "composition.layers[0].config: unknown placeholder '${quary}'"),
        (with_config({"a": [1, "${foo bar}"]}), "layers[0].config.a[1]: malformed placeholder '${foo bar}'"),
        (with_config({"a": "${query"}), "layers[0].config.a: '${' is never closed"),
        (with_config("${inputs.city}"), "'${inputs.city}' is not a variable of user_input_form"),
        (with_config("${env:GONE}"), "layers[0].config: the environment variable GONE is not set"),
        (with_config({"a": {1: "x"}}), "composition.layers[0].config.a.1: keys must be text"),
        (with_config({"a": float("nan")}), "config.a: must be a finite number"),
        (with_config({"a": "\x00"}), "config.a: the text holds a NUL"),
        (with_config({"a": "\ud800"}), "config.a: the text holds a NUL or half"),
        (with_config("${answer}"), "layers[0].config: '${answer}' is not known before the turn has ended"),
        ({"name": "x", "naming": {}}, "naming.composition: is missing"),
        (
            {"name": "x", "naming": feature("${inputs.city}")},
            "naming.composition.layers[0].config: '${inputs.city}' is not a variable",
        ),
        (
            {"name": "x", "suggested_questions_after_answer": {"enabled": True}},
            "suggested_questions_after_answer: needs a composition when it is enabled",
        ),
        (
            {"name": "x", "suggested_questions_after_answer": feature("${env:GONE}")},
            "suggested_questions_after_answer.composition.layers[0].config: the environment variable GONE",
        ),
    ],
)
def test_an_error_is_reported_with_its_path(data: object, complaint: str) -> None:
    message = refusal(data)
    assert message.startswith("app.yaml")
    assert complaint in message


def test_all_errors_are_reported_at_once_without_values() -> None:
    data = with_config(["${env:GONE}", "${x}", "${env:MODEL_KEY} ${inputs.y}"])
    message = refusal(data)
    assert message.count("\n  - ") == 3
    assert "sk-very-secret" not in message
    literal = {
        "name": "x",
        "composition": {"layers": [{"name": "a", "type": {"key": "sk-written-by-mistake"}}]},
    }
    assert "sk-written-by-mistake" not in refusal(literal)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: [", "is not valid YAML, line 1"),
        ("name: x\nname: y", "is not valid YAML, line 2, column 1: the key 'name' is written twice"),
        ("name: x\nmode: !!python/object:os.system {}", "could not determine a constructor"),
        ("name: x\ndescription: 2026-11-22", "description: a date is not JSON data"),
        ("name: x\ndescription: 2026-13-40", "is not valid YAML"),
        ("name: x\non: 1", "True: keys must be text"),
        ("name: \x07", "is not valid YAML"),
        ("name: x\ncomposition: &a {layers: [*a]}", "nested too deeply"),
        ("name: " + "[\n" * 5000, "nested too deeply"),
        ("", "must be a mapping"),
        ("just text", "must be a mapping"),
        ("name: x\n---\nname: y", "is not valid YAML"),
    ],
)
def test_an_invalid_file_is_refused_with_the_reason(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert "app.yaml" in str(error.value)
    assert complaint in str(error.value)


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_app_file(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match="cannot read the app file"):
        load_app_file(tmp_path, {})
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml is not UTF-8"):
        load_app_file(latin, {})


def test_yaml_merges_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    text = """\ufeffname: x
composition:
  layers:
    - &base {name: a, type: t, config: {k: 1}}
    - {<<: *base, name: b}
    - {<<: *base, name: c, type: u}
"""
    layers = load(tmp_path, text).composition.layers
    assert [(layer.name, layer.type, layer.config) for layer in layers] == [
        ("a", "t", {"k": 1}),
        ("b", "t", {"k": 1}),
        ("c", "u", {"k": 1}),
    ]


def test_the_example_of_the_documentation_is_a_valid_app_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "app-file.md").read_text("utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    config = load(tmp_path, example, {"OPENAI_API_KEY": "a", "WEATHER_API_KEY": "b"})
    assert [layer.name for layer in config.composition.layers][-2:] == ["llm", "tools"]
    with pytest.raises(ConfigError, match="the environment variable OPENAI_API_KEY is not set"):
        load(tmp_path, example, {})
