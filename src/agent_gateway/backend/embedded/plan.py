"""Reads a plan for the agent from the composition and the snapshot of a request, and makes the next snapshot.

A layer without a type (newer composition schema) is identified by its name. A config that the agent does not
know fails the run: nothing of it is dropped without a word.
"""

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

import msgspec
from pydantic import ValidationError

from agent_gateway.backend.embedded.layers import (
    LAYERS,
    HistoryConfig,
    LayerPart,
    ModelConfig,
    OutputConfig,
    PromptConfig,
    ToolsConfig,
    kind_of,
    mistakes,
    read_config,
)
from agent_gateway.backend.embedded.prompt_files import PromptFile, prompt_file
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.protocol import EMPTY_OBJECT, CreateRunRequest, Layer, OnExit

NOT_OF_OWN_AGENTS: Final = ("llm", "tools", "output")
"""The kinds of layers that mean nothing to an agent of somebody's own: it has its own model and tools."""
_LIFECYCLES: Final = {"suspend": "suspended", "delete": "closed"}
_NO_MESSAGES: Final = msgspec.Raw(b"[]")


StateT = TypeVar("StateT")
PartT = TypeVar("PartT", bound=LayerPart)


class SnapshotLayer(msgspec.Struct):
    """The state of one layer between two runs."""

    name: str
    lifecycle_state: str = "suspended"
    runtime_state: msgspec.Raw = EMPTY_OBJECT


class Snapshot(msgspec.Struct):
    """The session snapshot: one entry per layer of the composition, in order."""

    layers: list[SnapshotLayer]
    schema_version: int = 1


class HistoryState(msgspec.Struct):
    """Runtime state of the history layer: the messages as JSON in the agent framework's own form."""

    messages: msgspec.Raw = _NO_MESSAGES


class Plan(msgspec.Struct, frozen=True):
    """One run, read from its request."""

    layers: list[SnapshotLayer]
    """The layers as this run leaves them, still with the state they had before."""
    instructions: str | None
    prompt: list[str]
    """The user's words in this run; empty when it only cleans up."""
    files: list[PromptFile]
    """The files that came with them."""
    model: ModelConfig
    history: int | None
    """Index of the history layer; without one the agent remembers nothing."""
    answers: Mapping[str, object]
    """The answers of humans, by the id of the tool call that asked. With answers, the prompt is not used."""
    limits: HistoryConfig
    """How much of the history the model gets."""
    tools: ToolsConfig
    asks_human: bool
    """Whether the composition has a layer for questions to humans."""
    output: OutputConfig | None
    """The schema of the answer; None for plain text."""

    def messages(self) -> bytes:
        """The JSON list of the messages of earlier turns."""
        if self.history is None:
            return bytes(_NO_MESSAGES)
        return bytes(_decode(self.layers[self.history].runtime_state, HistoryState).messages)

    def snapshot(self, messages: bytes) -> Snapshot:
        """The snapshot after this run: the history holds these messages, the rest stays."""
        layers = list(self.layers)
        if self.history is not None:
            state = msgspec.json.encode(HistoryState(msgspec.Raw(messages)))
            layers[self.history] = msgspec.structs.replace(
                layers[self.history], runtime_state=msgspec.Raw(state)
            )
        return Snapshot(layers)


def read_plan(request: CreateRunRequest, ignored: Collection[str] = ()) -> Plan:
    """Check a request's composition and snapshot; raises RunFailed, whose text holds none of their values.

    The configs of layers of the `ignored` kinds are not read.
    """
    layers = request.composition.layers
    kinds = [_kind(layer) for layer in layers]
    configs = [
        None if kind in ignored else _config(layer, kind) for layer, kind in zip(layers, kinds, strict=True)
    ]
    on_exit = request.on_exit or OnExit()
    prompts = [config for config in configs if isinstance(config, PromptConfig)]
    prompt: list[str] = []
    files: list[PromptFile] = []
    for config in prompts:
        prompt += [*config.user, *([] if config.text is None else [config.text])]
        files += [prompt_file(entry) for entry in config.files]
    cleans_up = "llm" not in kinds and on_exit.default == "delete"
    if not cleans_up and not any(text.strip() for text in prompt) and not files:
        raise RunFailed("the user prompt must not be blank")
    return Plan(
        layers=_snapshot_layers(request, on_exit),
        instructions="\n\n".join(text for config in prompts for text in config.prefix) or None,
        prompt=[] if cleans_up else prompt,
        files=files,
        model=_first(configs, ModelConfig) or ModelConfig(),
        history=kinds.index("history") if "history" in kinds else None,
        answers=_answers(request),
        limits=_first(configs, HistoryConfig) or HistoryConfig(),
        tools=_first(configs, ToolsConfig) or ToolsConfig(),
        asks_human="ask_human" in kinds,
        output=_first(configs, OutputConfig),
    )


def _first(configs: list[LayerPart | None], kind: type[PartT]) -> PartT | None:
    return next((config for config in configs if isinstance(config, kind)), None)


def _config(layer: Layer, kind: str) -> LayerPart | None:
    """The config of a layer; None for a kind without one. Raises RunFailed for the first mistake in it."""
    if (model := LAYERS.get(kind)) is None:
        return None
    given = None if layer.config is msgspec.UNSET else layer.config
    try:
        return read_config(model, given)
    except ValidationError:
        # A text that looks like a placeholder is a user's text here.
        place, words = next(mistakes(kind, given), ("", "cannot be read"))
        raise RunFailed(f"layer {layer.name!r}: config{place}: {words}") from None


def _answers(request: CreateRunRequest) -> Mapping[str, object]:
    match request.deferred_tool_results:
        case None:
            return {}
        case {"calls": dict() as calls}:
            return calls
        case _:
            raise RunFailed("the deferred tool results cannot be read")


def _kind(layer: Layer) -> str:
    type_id = layer.name if layer.type is msgspec.UNSET else layer.type
    if (kind := kind_of(type_id)) is not None:
        return kind
    raise RunFailed(f"Layer type id {type_id!r} is not registered.")


def _snapshot_layers(request: CreateRunRequest, on_exit: OnExit) -> list[SnapshotLayer]:
    """The layers of the given snapshot, or fresh ones, in the lifecycle state they will exit with."""
    expected = [layer.name for layer in request.composition.layers]
    if request.session_snapshot is None:
        found = [SnapshotLayer(name) for name in expected]
    else:
        found = _decode(request.session_snapshot, Snapshot).layers
    if [layer.name for layer in found] != expected:
        raise RunFailed("session snapshot layer names must match the composition's layers in order")
    if any(layer.lifecycle_state == "closed" for layer in found):
        raise RunFailed("a closed session cannot be resumed")
    for layer in found:
        wish = on_exit.layers.get(layer.name, on_exit.default)
        layer.lifecycle_state = _LIFECYCLES.get(wish, "suspended")
    return found


def _decode(raw: msgspec.Raw, kind: type[StateT]) -> StateT:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError:
        raise RunFailed("the session snapshot cannot be read") from None
