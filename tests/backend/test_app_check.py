"""An app for the embedded agent has no setting that this agent would ignore silently."""

import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.models import known_model_names

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.apps.file import parse_app
from agent_gateway.backend.embedded.app_check import notes, problems
from agent_gateway.backend.embedded.providers import problem_of
from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from agent_gateway.startup_checks import check_app, validate_settings
from tests.support.json_type import Json
from tests.support.paths import ROOT

PROMPT: Json = {"name": "prompt", "type": "plain.prompt", "config": {"user": "${query}"}}
KNOWN = next(name for name in known_model_names() if name.startswith("openai:"))
PLACE = "composition.layers[1]"
EXTRAS = ("anthropic", "bedrock", "cohere", "google", "groq", "huggingface", "mistral")


def app_of(*layers: Json, **more: Any) -> AppConfig:
    return parse_app({"name": "x", "composition": {"layers": [PROMPT, *layers]}, **more}, None, "app.yaml")


def llm(model: Any) -> Json:
    return {"name": "llm", "type": "vendor.plugin.llm", "config": {"model": model}}


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (
            {"name": "a", "type": "plain.promt"},
            f"{PLACE}.type: the embedded agent has no layer 'plain.promt'; did you mean 'plain.prompt'?",
        ),
        (
            {"name": "a", "type": "vendor.plugin.lm"},
            f"{PLACE}.type: the embedded agent has no layer 'vendor.plugin.lm'; did you mean 'llm'?",
        ),
        (
            {"name": "histroy"},
            f"{PLACE}.name: the embedded agent has no layer 'histroy'; did you mean 'history'?",
        ),
        ({"name": "a", "type": "zzz.q"}, f"{PLACE}.type: the embedded agent has no layer 'zzz.q'"),
        (
            {"name": "a", "type": "vendor.plugin.tools", "config": {"tools": []}},
            f"{PLACE}.config.tools: the embedded agent has no such key",
        ),
        (
            {"name": "output", "type": "vendor.output"},
            f"{PLACE}.config.json_schema: is missing",
        ),
        (
            {"name": "a", "type": "plain.prompt", "config": {"prefx": "x", "suffix": "y"}},
            f"{PLACE}.config.prefx: the embedded agent has no such key; did you mean 'prefix'?",
        ),
        (
            {"name": "a", "type": "llm", "config": {"modle": "openai:gpt-5-mini"}},
            f"{PLACE}.config.modle: the embedded agent has no such key; did you mean 'model'?",
        ),
        (
            {"name": "a", "type": "llm", "config": {"credentials": {"api_key": "k"}}},
            f"{PLACE}.config.credentials: the embedded agent has no such key",
        ),
        (
            {"name": "history", "config": {"limit": 3}},
            f"{PLACE}.config.limit: the embedded agent has no such key",
        ),
        (
            {"name": "a", "type": "plain.prompt", "config": {"user": {"a": 1}}},
            f"{PLACE}.config.user: must be a text or a list of texts",
        ),
        (
            {"name": "a", "type": "user_prompt", "config": {"text": "x", "files": "See ${files}"}},
            f"{PLACE}.config.files: must be '${{files}}' and nothing else",
        ),
        (
            {"name": "a", "type": "user_prompt", "config": {"text": "x", "files": ["${files}"]}},
            f"{PLACE}.config.files: must be '${{files}}' and nothing else",
        ),
        ({"name": "a", "type": "plain.prompt", "config": "x"}, f"{PLACE}.config: must be a mapping"),
        (llm(3), f"{PLACE}.config.model: must be a text"),
        (
            llm("opnai:gpt-5-mini"),
            (
                f"{PLACE}.config.model: the model 'opnai:gpt-5-mini' cannot be used: "
                "no provider 'opnai' is known; did you mean 'openai'?"
            ),
        ),
        (
            llm(KNOWN.removeprefix("openai:")),
            f"{PLACE}.config.model: {KNOWN.removeprefix('openai:')!r} names no provider and model",
        ),
        (llm("openai:"), f"{PLACE}.config.model: 'openai:' names no provider and model"),
    ],
)
def test_ignored_parts_of_an_app_are_named_with_their_place(layer: Json, problem: str) -> None:
    found = problems(app_of(layer))
    assert found[0].startswith(problem)


@pytest.mark.parametrize(
    "layer",
    [
        llm("openai:gpt-5-mini"),
        llm("openai:a-model-of-tomorrow"),
        llm("${inputs.model}"),
        llm("openai:${env:MODEL}"),
        llm(""),
        llm(None),
        {"name": "llm", "type": "llm"},
        {"name": "execution_context", "config": {"anything": 1}},
        {"name": "a", "type": "vendor.user_prompt", "config": {"text": "${query}", "files": "${files}"}},
    ],
)
def test_supported_layers_are_accepted(layer: Json) -> None:
    form = [{"text-input": {"label": "Model", "variable": "model"}}]
    assert problems(app_of(layer, user_input_form=form)) == []


def test_a_question_to_a_human_needs_a_history() -> None:
    asking = {"name": "ask_human", "type": "vendor.ask_human", "config": None}
    assert problems(app_of({"name": "history"}, asking)) == []
    [problem] = problems(app_of(asking))
    assert problem == (
        f"{PLACE}: a question to a human needs a layer 'history': the answer comes in another run"
    )


def test_the_default_app_is_accepted_in_every_mode() -> None:
    for mode in ("chat", "agent-chat", "agent"):
        assert problems(default_app(mode)) == []


def test_every_problem_of_every_composition_is_listed() -> None:
    small = {"composition": {"layers": [{"name": "p", "type": "plain.prompt", "config": {"prefix": "x"}}]}}
    questions = {"composition": {"layers": [PROMPT, llm("nope")]}}
    config = app_of({"name": "zz"}, naming=small, suggested_questions_after_answer=questions)
    assert [problem.partition(":")[0] for problem in problems(config)] == [
        "composition.layers[1].name",
        "naming.composition",
        "suggested_questions_after_answer.composition.layers[1].config.model",
    ]


def test_an_unknown_model_name_is_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://127.0.0.1:1/v1")
    typed = KNOWN[:-3] + KNOWN[-1] + KNOWN[-3:-1]
    [note] = notes(app_of(llm(typed)))
    assert note.startswith(f"{PLACE}.config.model: {typed!r} is not a model that this release knows")
    assert f"did you mean {KNOWN!r}?" in note
    for model in (KNOWN, "ollama:anything", "openai:a-model-of-tomorrow"):
        assert notes(app_of(llm(model))) == []


def test_a_provider_whose_package_is_missing_is_told_with_the_extra_that_brings_it() -> None:
    """This environment has the packages of no provider but that of openai."""
    [problem] = problems(app_of(llm("anthropic:claude-haiku-4-5")))
    assert problem == (
        f"{PLACE}.config.model: the model 'anthropic:claude-haiku-4-5' cannot be used: "
        "the provider 'anthropic' needs a package: install agent-gateway[anthropic]"
    )
    history = {"name": "history", "config": {"max_messages": 4, "summary_model": "xai:grok"}}
    [problem] = problems(app_of(history))
    assert problem == (
        f"{PLACE}.config.summary_model: the model 'xai:grok' cannot be used: "
        "the provider 'xai' needs a package: install pydantic-ai-slim[xai]"
    )


def test_every_provider_that_needs_a_package_says_what_to_install() -> None:
    names = {name.partition(":")[0] for name in known_model_names()} - {"test"}
    told = {name: problem_of(name) for name in names}
    missing = {name: words for name, words in told.items() if words is not None}
    assert {"anthropic", "google", "groq", "mistral", "cohere", "huggingface"} <= missing.keys()
    ours = metadata("agent-gateway").get_all("Provides-Extra") or []
    theirs = metadata("pydantic-ai-slim").get_all("Provides-Extra") or []
    for name, words in missing.items():
        package, _, extra = words.rpartition(" install ")[2].removesuffix("]").partition("[")
        assert extra in {"agent-gateway": ours, "pydantic-ai-slim": theirs}[package], (name, words)
    assert "openai" not in missing


def test_our_extras_for_providers_are_those_of_the_framework() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    wanted = {name: needs for name, needs in found.items() if name in EXTRAS}
    assert wanted == {name: [f"pydantic-ai-slim[{name}]"] for name in EXTRAS}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"model": "ollama:a"}, None),
        ({"model": "ollama:a", "base_url": "http://127.0.0.1:1"}, None),
        ({"model": "bedrock:a", "base_url": "http://127.0.0.1:1"}, None),
        (
            {"model": "deepseek:a", "base_url": "http://127.0.0.1:1"},
            "the provider 'deepseek' takes no 'base_url'",
        ),
        ({"fallback_models": ["deepseek:a"]}, None),
        ({"fallback_models": ["openai:a", 3]}, "must be the name of a model or a mapping"),
        (
            {"fallback_models": ["openai:a", {"model": "openai:b", "api_keys": "x"}]},
            "the embedded agent has no such key; did you mean 'api_key'?",
        ),
        (
            {"fallback_models": ["openai:a", {"model": "deepseek:a", "base_url": "http://127.0.0.1:1"}]},
            "the provider 'deepseek' takes no 'base_url'",
        ),
    ],
)
def test_a_key_that_a_provider_does_not_take_is_named(more: Json, problem: str | None) -> None:
    layer = {"name": "llm", "type": "llm", "config": more}
    found = problems(app_of(layer))
    assert len(found) == (problem is not None)
    if problem is not None:
        assert found[0].endswith(problem)
        place = "fallback_models[1]" if "fallback_models" in more else "model"
        assert found[0].startswith(f"{PLACE}.config.{place}")


def test_the_variable_of_a_missing_key_is_named_and_never_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-a-secret")
    config: Json = {"model": "openai:gpt-5-mini", "fallback_models": ["deepseek:deepseek-chat"]}
    [note] = notes(app_of({"name": "llm", "type": "llm", "config": config}))
    assert note == (
        f"{PLACE}.config.model: the gateway needs the environment variable OPENAI_API_KEY, "
        "which is not set here"
    )
    assert notes(app_of({"name": "llm", "type": "llm", "config": config | {"api_key": "${env:K}"}})) == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array"}, "must be a JSON Schema with 'type: object'"),
        ({}, "must be a JSON Schema with 'type: object'"),
        (
            {"type": "object", "properties": {"a": {"type": "secret"}}},
            "is no JSON Schema: properties.a.type breaks",
        ),
        (
            {"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}},
            "has a '$ref' that leads elsewhere",
        ),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}},
            "has a '$ref' to a definition that is not there",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/a"}},
                "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}},
            },
            "has a '$ref' that leads back to itself",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_and_its_values_are_not(schema: Json, words: str) -> None:
    [problem] = problems(app_of({"name": "output", "config": {"json_schema": schema}}))
    assert problem.startswith(f"{PLACE}.config.json_schema: {words}")
    assert "secret" not in problem
    assert "example.com" not in problem


def test_a_schema_with_definitions_is_accepted() -> None:
    point = {"type": "object", "properties": {"x": {"type": "number"}}}
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/point"}}, "$defs": {"point": point}}
    assert problems(app_of({"name": "output", "config": {"json_schema": schema, "mode": "native"}})) == []


def test_layers_are_not_checked_for_another_backend() -> None:
    config = app_of({"name": "zz", "type": "vendor.unheard_of"})
    assert check_app(Settings(backend_url="http://127.0.0.1:1"), config, "app.yaml") == []
    with pytest.raises(ConfigError, match="AGENT_GATEWAY_BACKEND_URL is not set") as refused:
        check_app(Settings(backend_url=""), config, "app.yaml")
    assert "unheard_of" in str(refused.value)


def test_the_gateway_does_not_start_with_an_app_that_fails_the_check(tmp_path: Path) -> None:
    app = tmp_path / "app.yaml"
    app.write_text("name: x\ncomposition: {layers: [{name: prompt, config: {user: '${query}', sufix: x}}]}")
    settings = Settings(app_file=app, data_dir=tmp_path, backend_url="")
    with pytest.raises(ConfigError, match=r"layers\[0\]\.config\.sufix"):
        validate_settings(settings)
    validate_settings(Settings(app_file=app, data_dir=tmp_path, backend_url="http://127.0.0.1:1"))


def test_an_app_without_a_model_does_not_load_the_agent_framework() -> None:
    code = (
        "import sys; from agent_gateway.apps.config import default_app;"
        "from agent_gateway.backend.embedded.app_check import problems, notes;"
        "assert problems(default_app()) + notes(default_app()) == [];"
        "assert 'pydantic_ai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
