"""One composition in both generations of the run protocol, against recorded requests and strict backends."""

import json
import logging
from typing import Any

import msgspec
import pytest

from agent_gateway.backend.generations import in_generation
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer, OnExit
from agent_gateway.domain.ids import Generation
from agent_gateway.errors import TurnError
from tests.support.fakes.strict import complaints, failure
from tests.support.paths import RECORDED

SAME = [
    "plain",
    "two_text_parts",
    "multi_turn1",
    "tool_parallel",
    "tool_core",
    "tool_knowledge",
    "structured",
]
"""Scenarios that were recorded with both generations."""


def layers_of(name: str) -> list[dict[str, Any]]:
    body = json.loads((RECORDED / f"{name}.request.json").read_text("utf-8"))
    layers: list[dict[str, Any]] = body["composition"]["layers"]
    return layers


def request(layers: list[dict[str, Any]], snapshot: str | None = None, **more: Any) -> CreateRunRequest:
    written = [msgspec.convert(layer, type=Layer) for layer in layers]
    raw = None if snapshot is None else msgspec.Raw(snapshot.encode())
    return CreateRunRequest(Composition(1, written), session_snapshot=raw, **more)


def sent(wish: CreateRunRequest, generation: Generation, vendor: str = "dify.") -> Any:
    """The body, which a strict backend of that generation takes."""
    body = json.loads(msgspec.json.encode(in_generation(wish, generation)))
    assert complaints(body, generation) == []
    assert failure(body, generation, vendor) is None
    return body


def layers_sent(layers: list[dict[str, Any]], generation: Generation, vendor: str = "dify.") -> Any:
    return sent(request(layers), generation, vendor)["composition"]["layers"]


@pytest.mark.parametrize("name", SAME)
def test_a_schema_1_composition_is_sent_as_recorded_to_both_generations(name: str) -> None:
    written = layers_of(f"schema1/{name}")
    assert layers_sent(written, 1) == written
    assert layers_sent(written, 2) == layers_of(f"schema2/{name}")


@pytest.mark.parametrize("name", SAME)
def test_a_schema_2_composition_is_accepted_by_both_generations(name: str) -> None:
    written = layers_of(f"schema2/{name}")
    assert layers_sent(written, 2) == written
    typed = layers_sent(written, 1)
    wanted = layers_of(f"schema1/{name}")
    assert [(one["name"], one["type"], one.get("deps")) for one in typed] == [
        (one["name"], one["type"], one.get("deps")) for one in wanted
    ]
    # The user's two texts are one text here.
    assert [one.get("config") or {} for one in typed if one["name"] != "agent_app_user_prompt"] == [
        one.get("config") or {} for one in wanted if one["name"] != "agent_app_user_prompt"
    ]


BASE: list[dict[str, Any]] = [
    {"name": "soul", "type": "plain.prompt", "config": {"prefix": "Be kind."}},
    {"name": "rules", "type": "plain.prompt", "config": {"prefix": ["No lies."], "suffix": "Be short."}},
    {"name": "question", "type": "plain.prompt", "config": {"user": ["Hi", "there"]}},
    {
        "name": "context",
        "type": "acme.execution_context",
        "metadata": {"x": 1},
        "config": {
            "tenant_id": "t",
            "user_id": "u",
            "user_from": "end-user",
            "app_id": "a",
            "agent_mode": "agent_app",
            "invoke_from": "service-api",
        },
    },
    {"name": "history", "type": "pydantic_ai.history", "config": None},
    {
        "name": "llm",
        "type": "acme.plugin.llm",
        "deps": {"execution_context": "context"},
        "config": {"plugin_id": "p", "model_provider": "m", "model": "x"},
    },
]


def test_layers_with_custom_names_get_registered_names() -> None:
    assert layers_sent(BASE, 1, "acme.") == BASE
    named = layers_sent(BASE, 2)
    assert [layer["name"] for layer in named] == [
        "prompt",
        "agent_soul_prompt",
        "workflow_node_job_prompt",
        "execution_context",
        "history",
        "llm",
    ]
    assert [set(layer) for layer in named] == [{"name", "config"}] * 6
    assert named[2]["config"] == {"user": ["Hi", "there"]}
    assert named[4]["config"] == {}


def test_a_name_registered_for_another_kind_of_layer_is_replaced() -> None:
    layers = [{**BASE[2], "name": "config"}, *BASE[3:]]
    assert [layer["name"] for layer in layers_sent(layers, 2)] == [
        "prompt",
        "execution_context",
        "history",
        "llm",
    ]


def test_a_registered_name_already_in_use_is_not_taken_twice() -> None:
    layers = [{**BASE[0], "name": "first"}, {**BASE[2], "name": "prompt"}, *BASE[3:]]
    assert [layer["name"] for layer in layers_sent(layers, 2)][:2] == ["agent_soul_prompt", "prompt"]


def test_the_user_prompt_is_sent_as_one_text_under_its_registered_name() -> None:
    layers = [{**BASE[2], "name": "agent_app_user_prompt"}, *BASE[3:]]
    assert layers_sent(layers, 2)[0] == {"name": "agent_app_user_prompt", "config": {"text": "Hi\n\nthere"}}
    # With instructions beside it, it is not.
    layers[0]["config"] = {"user": "Hi", "prefix": "Be kind."}
    assert layers_sent(layers, 2)[0] == {"name": "prompt", "config": {"user": "Hi", "prefix": "Be kind."}}


def test_a_user_prompt_with_files_is_the_same_in_both_generations() -> None:
    config = {
        "text": "Look",
        "files": [{"delivery": "multimodal", "type": "image", "url": "https://x.test/a"}],
    }
    layers = [{"name": "asked", "type": "acme.user_prompt", "config": config}, *BASE[3:]]
    assert layers_sent(layers, 1, "acme.")[0] == layers[0]
    assert layers_sent(layers, 2)[0] == {"name": "user_prompt", "config": config}
    written = [{"name": "agent_app_user_prompt", "config": config}, *BASE[3:]]
    assert layers_sent(written, 1, "acme.")[0] == {
        "name": "agent_app_user_prompt",
        "type": "acme.user_prompt",
        "config": config,
    }


def test_references_are_dependencies_in_schema_1_and_fields_in_schema_2() -> None:
    shell: dict[str, Any] = {
        "name": "sandbox",
        "type": "acme.shell",
        "deps": {"execution_context": "context"},
        "config": {},
    }
    tools: dict[str, Any] = {
        "name": "tools",
        "type": "acme.plugin.tools",
        "deps": {"execution_context": "context", "shell": "sandbox"},
        "config": {"tools": []},
    }
    layers = [*BASE[2:], shell, tools]
    named = {layer["name"]: layer["config"] for layer in layers_sent(layers, 2)}
    # The context is what they all refer to by themselves, a shell is not.
    assert named["tools"] == {"tools": [], "shell": "shell"}
    assert named["shell"] == {}
    back = layers_sent([{"name": name, "config": config} for name, config in named.items()], 1)
    deps = {layer["name"]: layer.get("deps") for layer in back}
    assert deps["tools"] == {"execution_context": "execution_context", "shell": "shell"}
    assert deps["llm"] == {"execution_context": "execution_context"}
    assert next(layer for layer in back if layer["name"] == "tools")["config"] == {"tools": []}


def test_layers_in_any_order_are_sorted_by_dependency_for_schema_1() -> None:
    written = [*reversed(layers_of("schema2/tool_parallel"))]
    assert layers_sent(written, 2) == written
    names = [layer["name"] for layer in layers_sent(written, 1)]
    assert names == [
        "history",
        "execution_context",
        "tools",
        "llm",
        "agent_app_user_prompt",
        "agent_soul_prompt",
    ]


def test_unmet_dependencies_are_left_for_the_backend_to_refuse() -> None:
    layers = [
        {"name": "a", "type": "acme.x", "deps": {"b": "b"}},
        {"name": "b", "type": "acme.x", "deps": {"a": "a"}},
        {"name": "c", "type": "acme.x", "deps": {"d": "nowhere"}},
    ]
    names = [layer.name for layer in in_generation(request(layers), 1).composition.layers]
    assert names == ["a", "b", "c"]


def test_the_ask_human_layer_is_left_out_for_schema_2() -> None:
    asks: dict[str, Any] = {"name": "ask_human", "type": "acme.ask_human", "config": {}}
    layers = [*BASE, asks]
    assert "ask_human" not in [layer["name"] for layer in layers_sent(layers, 2)]
    assert layers_sent(layers, 1, "acme.") == layers


def test_a_schema_2_file_may_have_an_ask_human_layer_for_schema_1() -> None:
    asks: dict[str, Any] = {"name": "ask_human", "config": {}}
    written = [*layers_of("schema2/plain"), asks]
    assert layers_sent(written, 2) == written[:-1]
    assert layers_sent(written, 1)[-1] == {"name": "ask_human", "type": "dify.ask_human", "config": {}}


def test_an_unknown_layer_is_sent_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    layers = [*BASE, {"name": "new_thing", "type": "acme.new_thing", "config": {"x": 1}}]
    with caplog.at_level(logging.WARNING):
        named = in_generation(request(layers), 2).composition.layers
    assert named[-1] == Layer("new_thing", config={"x": 1})
    assert "no kind of layer for 'new_thing'" in caplog.text
    # Without a type it may be of any generation.
    assert in_generation(request([{"name": "x"}]), 1).composition.layers == [Layer("x")]


def test_only_fields_of_the_generation_are_sent() -> None:
    wish = request(
        BASE,
        '{"schema_version":2,"layers":{"history":{}}}',
        deferred_tool_results={"calls": {}, "metadata": {}},
        idempotency_key="k",
        metadata={"conversation_id": "c"},
        on_exit=OnExit(),
    )
    second = sent(wish, 2)
    assert list(second) == ["composition", "session_snapshot", "idempotency_key", "metadata"]
    assert second["composition"]["schema_version"] == 2
    first = json.loads(msgspec.json.encode(in_generation(wish, 1)))
    assert complaints(first, 1) == []
    assert first["on_exit"] == {"default": "suspend", "layers": {}}
    assert first["deferred_tool_results"] == {"calls": {}, "metadata": {}}
    assert [layer["lifecycle_state"] for layer in first["session_snapshot"]["layers"]] == [
        *["new"] * 4,
        "suspended",
        "new",
    ]


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("snapshot", ["", "null", "not json", '{"layers":7}', "[" * 100_000], ids=range(5))
def test_an_unreadable_snapshot_fails_the_turn(
    generation: Generation, snapshot: str, caplog: pytest.LogCaptureFixture
) -> None:
    wish = request(BASE, snapshot, metadata={"conversation_id": "conv-1"})
    with pytest.raises(TurnError) as failed:
        in_generation(wish, generation)
    assert failed.value.code == "internal_server_error"
    assert "conversation conv-1: its snapshot cannot be read" in caplog.text


def test_converting_does_not_change_the_original_request() -> None:
    before = json.dumps(BASE)
    wish = request(BASE)
    in_generation(wish, 2)
    in_generation(wish, 1)
    assert json.dumps(BASE) == before
    assert wish == request(BASE)
