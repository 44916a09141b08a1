"""Puts a request into the form of the backend's generation of the run protocol.

A backend speaks one generation. In schema 1 a layer has any name, a type and its dependencies; in schema 2 it
has a config and one of the names that are registered for its kind. An app file may use either form. The form
that is sent depends on the backend alone, never on the app, so that an app and its conversations survive an
upgrade of the backend, and its roll-back.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer
from agent_gateway.backend.snapshots import in_schema_1, in_schema_2
from agent_gateway.causes import Cause
from agent_gateway.domain.ids import Generation
from agent_gateway.errors import TurnError

VENDOR: Final = "dify."
"""Prefix of types in schema 1 when no layer of the composition shows another one."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of layer that exists in both generations."""

    ending: str
    """The end of its type in schema 1, in every build."""
    type: str
    """Its type in schema 1 without the vendor's prefix."""
    names: tuple[str, ...]
    """Its names in schema 2."""
    refers_to: tuple[str, ...] = ()
    """Layers it needs, by their names in schema 2: keys of `deps` in schema 1, fields of the config in 2."""
    vendor: bool = True


_PROMPT: Final = _Kind(
    "prompt",
    "plain.prompt",
    ("prompt", "agent_soul_prompt", "workflow_node_job_prompt", "workflow_user_prompt"),
    vendor=False,
)
_USER_PROMPT: Final = _Kind("user_prompt", "user_prompt", ("user_prompt", "agent_app_user_prompt"))
_CONTEXT: Final = "execution_context"
_ASK_HUMAN: Final = _Kind("ask_human", "ask_human", ("ask_human",))
"""Only schema 1 has questions to humans. Schema 2 has no such name, but an app file may use it."""
_KINDS: Final = (
    # Of two endings, the longer one comes first.
    _USER_PROMPT,
    _PROMPT,
    _ASK_HUMAN,
    _Kind(_CONTEXT, _CONTEXT, (_CONTEXT,)),
    _Kind("history", "pydantic_ai.history", ("history",), vendor=False),
    _Kind("llm", "plugin.llm", ("llm",), (_CONTEXT,)),
    _Kind("core.tools", "core.tools", ("core_tools",), (_CONTEXT,)),
    _Kind("tools", "plugin.tools", ("tools",), (_CONTEXT, "shell")),
    _Kind("knowledge_base", "knowledge_base", ("knowledge",), (_CONTEXT,)),
    _Kind("output", "output", ("output",)),
    _Kind("runtime", "runtime", ("runtime",)),
    _Kind("shell", "shell", ("shell",), ("runtime", _CONTEXT)),
    _Kind("config", "config", ("config",), ("shell",)),
)
_KIND_OF_NAME: Final = {name: kind for kind in _KINDS for name in kind.names}


def in_generation(request: CreateRunRequest, generation: Generation) -> CreateRunRequest:
    """A copy of this request for a backend of that generation; nothing stored is changed.

    Raises TurnError (`internal_server_error`) when the snapshot cannot be read: without it the run would lose
    the conversation.
    """
    stored = request.session_snapshot
    try:
        if generation == 1:
            layers = _typed(request.composition.layers)
            names = [layer.name for layer in layers]
            snapshot = None if stored is None else in_schema_1(bytes(stored), names)
        else:
            layers = _named(request.composition.layers)
            snapshot = None if stored is None else in_schema_2(bytes(stored))
    except (ValueError, RecursionError) as error:
        # Only the kind of error is logged: its text may quote the conversation.
        conversation = request.metadata.get("conversation_id")
        logger.error("conversation %s: its snapshot cannot be read: %s", conversation, type(error).__name__)
        cause = Cause("SnapshotUnreadable", said=type(error).__name__)
        raise TurnError("internal_server_error", cause) from None
    return msgspec.structs.replace(
        request,
        composition=Composition(schema_version=generation, layers=layers),
        session_snapshot=snapshot,
        # Nothing is lost: the answer of a human is also the user's text (`query_of` a form).
        deferred_tool_results=request.deferred_tool_results if generation == 1 else None,
        on_exit=request.on_exit if generation == 1 else None,
    )


def _kind(layer: Layer) -> _Kind | None:
    """By the end of its type, since vendors differ; by its name when it has no type."""
    return _kind_of_type(layer.type) if isinstance(layer.type, str) else _KIND_OF_NAME.get(layer.name)


@lru_cache(256)
def _kind_of_type(type_: str) -> _Kind | None:
    return next((kind for kind in _KINDS if type_.endswith(kind.ending)), None)


# -- schema 1 -----------------------------------------------------------------------------------------


def _typed(layers: list[Layer]) -> list[Layer]:
    """The layers with types and dependencies. A layer that has a type is sent as it was written."""
    vendor = _vendor(layers)
    names = {layer.name for layer in layers}
    return _in_order([_with_type(layer, vendor, names) for layer in layers])


def _in_order(layers: list[Layer]) -> list[Layer]:
    """Each layer after its dependencies, otherwise in the given order: schema 2 requires no order."""
    waiting, placed = list(layers), dict[str, Layer]()
    while waiting:
        free = (
            one for one in waiting if not isinstance(one.deps, dict) or placed.keys() >= {*one.deps.values()}
        )
        # The backend refuses a layer that depends on itself or on a missing layer.
        layer = next(free, waiting[0])
        waiting.remove(layer)
        placed[layer.name] = layer
    return list(placed.values())


def _vendor(layers: Iterable[Layer]) -> str:
    for layer in layers:
        kind = _kind(layer)
        if kind is not None and kind.vendor and isinstance(layer.type, str):
            prefix = layer.type.removesuffix(kind.type)
            if prefix not in ("", layer.type):
                return prefix
    return VENDOR


def _with_type(layer: Layer, vendor: str, names: set[str]) -> Layer:
    kind = _kind(layer)
    if isinstance(layer.type, str) or kind is None:
        return layer
    config: Any = layer.config
    deps: dict[str, str] = {}
    if isinstance(config, dict):
        config, deps = _referring(config, kind, names)
        if kind is _USER_PROMPT and config.keys() <= {"text"}:
            # Every build has the plain prompt, but not every build has a user prompt.
            kind, config = _PROMPT, {"user": config.get("text", "")}
    else:
        deps = {name: name for name in kind.refers_to if name in names}
    return Layer(
        name=layer.name,
        type=f"{vendor}{kind.type}" if kind.vendor else kind.type,
        deps=layer.deps if isinstance(layer.deps, dict) else deps or msgspec.UNSET,
        metadata=layer.metadata,
        config=config,
    )


def _referring(
    config: Mapping[str, object], kind: _Kind, names: set[str]
) -> tuple[dict[str, object], dict[str, str]]:
    """The config without the fields that name other layers, and those names."""
    deps: dict[str, str] = {}
    for field in kind.refers_to:
        target = config.get(field, field)
        if isinstance(target, str) and target in names:
            deps[field] = target
    return {key: value for key, value in config.items() if key not in kind.refers_to}, deps


# -- schema 2 -----------------------------------------------------------------------------------------


def _named(layers: list[Layer]) -> list[Layer]:
    """The layers under registered names, with everything they say in their configs."""
    kept = [layer for layer in layers if _kind(layer) is not _ASK_HUMAN]
    names = _registered_names(kept)
    return [Layer(name=names[layer.name], config=_config(layer, names)) for layer in kept]


def _registered_names(layers: list[Layer]) -> dict[str, str]:
    """A registered name for each layer: its own, or the first one that no other layer has."""
    taken = {layer.name for layer in layers}
    names: dict[str, str] = {}
    for layer in layers:
        kind = _kind(layer)
        name = layer.name
        if kind is None:
            logger.warning("schema 2 of the run protocol has no kind of layer for %r", name)
        elif name not in kind.names and not _is_plain_text(layer):
            name = next((free for free in kind.names if free not in taken), name)
            taken.add(name)
        names[layer.name] = name
    return names


def _is_plain_text(layer: Layer) -> bool:
    """True for a plain prompt of schema 1 that holds only the user's text, under a name for such a text."""
    return (
        layer.name in _USER_PROMPT.names
        and _kind(layer) is _PROMPT
        and isinstance(layer.config, dict)
        and layer.config.keys() - {"files"} == {"user"}
    )


def _config(layer: Layer, names: Mapping[str, str]) -> Any:
    if not isinstance(layer.config, dict):
        # Absent or null; the backend judges anything else.
        return layer.config or {}
    if _is_plain_text(layer):
        files = {key: value for key, value in layer.config.items() if key == "files"}
        return {"text": _joined(layer.config["user"]), **files}
    kind = _kind(layer)
    deps = layer.deps if kind is not None and isinstance(layer.deps, dict) else {}
    references = {
        field: names.get(target, target)
        for field, target in deps.items()
        if kind is not None and field in kind.refers_to
    }
    if references.get(_CONTEXT) == _CONTEXT:
        del references[_CONTEXT]  # the default everywhere
    return {**layer.config, **references} if references else cast("Mapping[str, object]", layer.config)


def _joined(user: Any) -> Any:
    """Several texts as one, which is how the model gets them."""
    if isinstance(user, list) and all(isinstance(text, str) for text in user):
        return "\n\n".join(text for text in user if text)
    return user
