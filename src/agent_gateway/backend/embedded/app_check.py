"""Finds the parts of an app that the embedded agent would ignore silently, each with its path.

The gateway knows the layers of the embedded agent, but not those of other backends. Importing this module is
cheap: the agent framework is loaded only for an app that names a model.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Final

from agent_gateway.apps.config import AppConfig, CompositionTemplate, LayerTemplate
from agent_gateway.apps.file import compositions
from agent_gateway.apps.template import Placeholder, parse
from agent_gateway.backend.embedded.plan import KINDS, kind_of

_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "prompt": ("prefix", "user", "text", "files"),
    "history": (),
    "llm": ("model", "on_process_lost"),
    "ask_human": (),
}
"""The keys that a layer's config can have, by its kind. An `execution_context` may have any keys."""
ALMOST: Final = 0.9
"""From this similarity on, an unknown model's name is taken for a misspelt known one."""
_TEXTS: Final = ("prefix", "user")
_NOTHING: Final = {
    "tools": "the embedded agent takes no tools from an app, so this layer would do nothing",
    "output": "the embedded agent has no structured output, so this layer would do nothing",
}
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


def unknown_models(config: AppConfig) -> list[str]:
    """Notes about models whose names are close to known ones. They may be newer than this release."""
    return [
        f"{path}: {model!r} is not a model that this release knows{_meant(close)}"
        for path, model in _models(config)
        if _model_problem(model) is None and model not in _known_models()
        for close in get_close_matches(model, _known_models(), n=1, cutoff=ALMOST)
    ]


def _of_composition(path: str, template: CompositionTemplate) -> Iterator[str]:
    said = False
    for index, layer in enumerate(template.layers):
        place = f"{path}.layers[{index}]"
        kind = kind_of(_type_of(layer))
        if kind is None:
            where, name = ("type", layer.type) if layer.type is not None else ("name", layer.name)
            nearest = _nearest(name, _NAMES) or _nearest(name.rpartition(".")[2], (*_NAMES, *KINDS))
            yield f"{place}.{where}: the embedded agent has no layer {name!r}{nearest}"
        elif kind in _NOTHING:
            yield f"{place}: {_NOTHING[kind]}"
        else:
            yield from _of_config(f"{place}.config", kind, layer.config)
        if kind == "prompt" and isinstance(layer.config, dict):
            said = said or bool(layer.config.get("user") or layer.config.get("text"))
    if not said:
        yield f"{path}: no prompt layer has a 'user' or a 'text', so every run would fail"


def _of_config(path: str, kind: str, config: object) -> Iterator[str]:
    if config is None:
        return
    if not isinstance(config, dict):
        yield f"{path}: must be a mapping"
        return
    keys = _KEYS.get(kind)
    for key, value in config.items():
        if keys is not None and key not in keys:
            yield f"{path}.{key}: the embedded agent has no such key{_nearest(key, keys)}"
        elif kind == "prompt" and key in _TEXTS and not _is_texts(value):
            yield f"{path}.{key}: must be a text or a list of texts"
        elif kind == "prompt" and key == "text" and not isinstance(value, str):
            yield f"{path}.{key}: must be a text"
        elif kind == "prompt" and key == "files" and not _is_files(value):
            yield f"{path}.{key}: must be '${{files}}' and nothing else"
        elif key == "on_process_lost":
            if value not in ("fail", "restart"):
                yield f"{path}.{key}: must be 'fail' or 'restart'"
        elif kind == "llm" and value is not None:
            problem = _model_problem(value) if isinstance(value, str) else "must be a text"
            if problem is not None:
                yield f"{path}.{key}: {problem}"


def _type_of(layer: LayerTemplate) -> str:
    return layer.name if layer.type is None else layer.type


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(text, str) for text in value)
    )


def _is_files(value: object) -> bool:
    """Whether it is a list of files or becomes one: a lone placeholder keeps the type of its value."""
    if isinstance(value, str):
        parts = parse(value)
        return len(parts) == 1 and isinstance(parts[0], Placeholder)
    return value is None or (isinstance(value, list) and all(isinstance(file, dict) for file in value))


def _models(config: AppConfig) -> Iterator[tuple[str, str]]:
    for path, template in compositions(config):
        for index, layer in enumerate(template.layers):
            model = layer.config.get("model") if isinstance(layer.config, dict) else None
            if kind_of(_type_of(layer)) == "llm" and isinstance(model, str):
                yield f"{path}.layers[{index}].config.model", model


def _model_problem(model: str) -> str | None:
    """Why no run with this model name can work; None when one may work, or for a placeholder."""
    if not model or model == "test" or any(isinstance(part, Placeholder) for part in parse(model)):
        return None
    # The agent framework takes seconds to import: only an app that names a model needs it here.
    from pydantic_ai.providers import infer_provider_class

    provider, colon, name = model.partition(":")
    if not colon or not name:
        meant = [known for known in _known_models() if known.partition(":")[2] == provider]
        return f"{model!r} names no provider and model, as in 'openai:gpt-5-mini'{_meant(*meant)}"
    try:
        infer_provider_class(provider)
    except ValueError:
        meant = get_close_matches(provider, {known.partition(":")[0] for known in _known_models()}, n=1)
        nearest = _meant(*(f"{close}:{name}" for close in meant))
        return f"the model {model!r} is of a provider that is not known{nearest}"
    except ImportError:
        return f"the provider of the model {model!r} is not installed"
    return None


@cache
def _known_models() -> tuple[str, ...]:
    from pydantic_ai.models import known_model_names

    return tuple(known_model_names())


def _nearest(name: str, known: Iterable[str]) -> str:
    return _meant(*get_close_matches(name, list(known), n=1))


def _meant(*names: str) -> str:
    return f"; did you mean {names[0]!r}?" if names else ""
