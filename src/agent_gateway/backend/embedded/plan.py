"""Reads a plan for the agent from the composition and the snapshot of a request, and makes the next snapshot.

A layer is identified by the end of its type id, because the vendor prefix differs between builds. A layer
without a type (newer composition schema) is identified by its name. Layers without a meaning here (execution
context, tools, output) are accepted and ignored.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from agent_gateway.backend.embedded.prompt_files import PromptFile, prompt_file
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.protocol import EMPTY_OBJECT, CreateRunRequest, Layer, OnExit

KINDS: Final = ("prompt", "history", "llm", "execution_context", "tools", "ask_human", "output")
_LIFECYCLES: Final = {"suspend": "suspended", "delete": "closed"}
_NO_MESSAGES: Final = msgspec.Raw(b"[]")


StateT = TypeVar("StateT")


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
    model: str | None
    """The model that the llm layer names; None means the configured one."""
    history: int | None
    """Index of the history layer; without one the agent remembers nothing."""
    answers: Mapping[str, object]
    """The answers of humans, by the id of the tool call that asked. With answers, the prompt is not used."""
    asks_human: bool
    """Whether the composition has a layer for questions to humans."""

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


def read_plan(request: CreateRunRequest) -> Plan:
    """Check a request's composition and snapshot; raises RunFailed, whose text holds none of their values."""
    layers = request.composition.layers
    kinds = [_kind(layer) for layer in layers]
    on_exit = request.on_exit or OnExit()
    prompt: list[str] = []
    prefix: list[str] = []
    files: list[PromptFile] = []
    for layer in (layer for layer, kind in zip(layers, kinds, strict=True) if kind == "prompt"):
        prefix += _texts(layer, "prefix")
        prompt += [*_texts(layer, "user"), *_texts(layer, "text")]
        files += [prompt_file(entry) for entry in _files(layer)]
    cleans_up = "llm" not in kinds and on_exit.default == "delete"
    if not cleans_up and not any(text.strip() for text in prompt) and not files:
        raise RunFailed("the user prompt must not be blank")
    return Plan(
        layers=_snapshot_layers(request, on_exit),
        instructions="\n\n".join(prefix) or None,
        prompt=[] if cleans_up else prompt,
        files=files,
        model=next((_model(layers[i]) for i, kind in enumerate(kinds) if kind == "llm"), None),
        history=kinds.index("history") if "history" in kinds else None,
        answers=_answers(request),
        asks_human="ask_human" in kinds,
    )


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


def kind_of(type_id: str) -> str | None:
    """The kind of a layer with this type, or with this name and no type; None when it is unknown."""
    return next((kind for kind in KINDS if type_id.endswith(kind)), None)


def _texts(layer: Layer, key: str) -> list[str]:
    match _config(layer).get(key):
        case None:
            return []
        case str() as text:
            return [text]
        case list() as texts if all(isinstance(text, str) for text in texts):
            return texts
        case _:
            raise RunFailed(f"layer {layer.name!r}: `{key}` must be a string or a list of strings")


def _files(layer: Layer) -> list[Mapping[str, object]]:
    match _config(layer).get("files"):
        case None:
            return []
        case list() as files if all(isinstance(file, dict) for file in files):
            return files
        case _:
            raise RunFailed(f"layer {layer.name!r}: `files` must be a list of objects")


def _model(layer: Layer) -> str | None:
    model = _config(layer).get("model")
    if model is not None and not isinstance(model, str):
        raise RunFailed(f"layer {layer.name!r}: `model` must be a string")
    return model or None


def _config(layer: Layer) -> Mapping[str, object]:
    match layer.config:
        case None | msgspec.UNSET:
            return {}
        case dict() as config:
            return config
        case _:
            raise RunFailed(f"layer {layer.name!r}: the config must be an object")


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
