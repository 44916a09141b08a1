"""Finds the parts of an app that the embedded agent would ignore silently, each with its path.

The gateway knows the layers of the embedded agent, but not those of other backends. Importing this module is
cheap: the agent framework is loaded only for an app that names a model.
"""

from collections.abc import Iterator
from typing import Final

from agent_gateway.apps.config import AppConfig, CompositionTemplate
from agent_gateway.apps.file import compositions
from agent_gateway.backend.embedded.layers import KINDS, kind_of, mistakes, nearest
from agent_gateway.backend.embedded.model_check import model_notes, model_problems, type_of

_MANY: Final = ("prompt", "execution_context")
"""The kinds of which a composition may have several layers."""
_NAMES: Final = (
    "plain.prompt",
    "user_prompt",
    "pydantic_ai.history",
    "llm",
    "execution_context",
    "ask_human",
)


def problems(config: AppConfig) -> list[str]:
    """Everything that the embedded agent does not know, each with its path."""
    return [problem for path, template in compositions(config) for problem in _of_composition(path, template)]


def notes(config: AppConfig) -> list[str]:
    """What the operator should look at, although it may be right: names that are nearly those of known
    models (they may be newer than this release), and keys that are not in the environment of this command."""
    return [note for path, template in compositions(config) for note in model_notes(path, template)]


def _of_composition(path: str, template: CompositionTemplate) -> Iterator[str]:
    said = False
    seen: set[str] = set()
    for index, layer in enumerate(template.layers):
        place = f"{path}.layers[{index}]"
        kind = kind_of(type_of(layer))
        if kind is None:
            where, name = ("type", layer.type) if layer.type is not None else ("name", layer.name)
            meant = nearest(name, _NAMES) or nearest(name.rpartition(".")[2], (*_NAMES, *KINDS))
            yield f"{place}.{where}: the embedded agent has no layer {name!r}{meant}"
            continue
        if kind in seen and kind not in _MANY:
            yield f"{place}: the embedded agent takes one layer of the kind {kind!r}, and this is another"
        seen.add(kind)
        yield from (f"{place}.config{inner}: {words}" for inner, words in mistakes(kind, layer.config))
        if kind == "prompt" and isinstance(layer.config, dict):
            said = said or bool(layer.config.get("user") or layer.config.get("text"))
    yield from model_problems(path, template)
    if not said:
        yield f"{path}: no prompt layer has a 'user' or a 'text', so every run would fail"
