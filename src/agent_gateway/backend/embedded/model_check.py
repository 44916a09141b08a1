"""Checks the models that an app names: that each can be made here, and what is probably wrong with it."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, NamedTuple

from agent_gateway.apps.config import CompositionTemplate, LayerTemplate
from agent_gateway.apps.template import Placeholder, parse
from agent_gateway.backend.embedded.agent.providers import missing_variables, problem_of
from agent_gateway.backend.embedded.layers import kind_of, nearest

ALMOST: Final = 0.9
"""From this similarity on, an unknown model's name is taken for a misspelt known one."""
_MODEL_KEYS: Final = {"llm": ("model", "fallback_models"), "history": ("summary_model",)}
"""The keys that name models, by the kind of the layer."""


class _Named(NamedTuple):
    """A model that a layer names."""

    path: str
    name: str
    keys: tuple[str, ...]
    """Which of `api_key` and `base_url` it comes with."""

    @property
    def provider(self) -> str:
        return self.name.partition(":")[0]

    @property
    def may_be_any(self) -> bool:
        return not self.name or self.name == "test" or _has_placeholder(self.name)


def model_problems(path: str, template: CompositionTemplate) -> Iterator[str]:
    """Each model of a composition with which no run can work, with its path."""
    for model in _models(path, template):
        if (problem := _model_problem(model)) is not None:
            yield f"{model.path}: {problem}"


def model_notes(path: str, template: CompositionTemplate) -> Iterator[str]:
    """What is probably wrong with the models of a composition, with their paths."""
    for model in _models(path, template):
        if not model.may_be_any and _model_problem(model) is None:
            yield from filter(None, (_misspelt(model), _without_key(model)))


def type_of(layer: LayerTemplate) -> str:
    """The type of a layer, or its name if it has none."""
    return layer.name if layer.type is None else layer.type


def _misspelt(model: _Named) -> str:
    known = _known_models()
    meant = "" if model.name in known else nearest(model.name, known, ALMOST)
    return meant and f"{model.path}: {model.name!r} is not a model that this release knows{meant}"


def _without_key(model: _Named) -> str:
    if model.keys or not (variables := missing_variables(model.provider)):
        return ""
    names = " or ".join(variables)
    return f"{model.path}: the gateway needs the environment variable {names}, which is not set here"


def _models(path: str, template: CompositionTemplate) -> Iterator[_Named]:
    """Every model that a composition names."""
    for index, layer in enumerate(template.layers):
        if not isinstance(layer.config, dict):
            continue
        for key in _MODEL_KEYS.get(kind_of(type_of(layer)) or "", ()):
            place, given = f"{path}.layers[{index}].config.{key}", layer.config.get(key)
            if key == "model":
                yield from _named(place, given, layer.config)
            elif isinstance(given, list):
                for number, one in enumerate(given):
                    yield from _other(f"{place}[{number}]", one)
            else:
                yield from _other(place, given)


def _other(path: str, given: object) -> Iterator[_Named]:
    if isinstance(given, dict):
        yield from _named(f"{path}.model", given.get("model"), given)
    else:
        yield from _named(path, given, {})


def _named(path: str, name: object, config: Mapping[str, object]) -> Iterator[_Named]:
    if isinstance(name, str):
        yield _Named(path, name, tuple(key for key in ("api_key", "base_url") if config.get(key)))


def _model_problem(model: _Named) -> str | None:
    """Why no run with this model can work; None when one may work."""
    if model.may_be_any:
        return None
    provider, colon, name = model.name.partition(":")
    if not colon or not name:
        # The agent framework takes seconds to import: only an app that names a model needs it here.
        meant = [known for known in _known_models() if known.partition(":")[2] == provider]
        hint = f"; did you mean {meant[0]!r}?" if meant else ""
        return f"{model.name!r} names no provider and model, as in 'openai:gpt-5-mini'{hint}"
    if (problem := problem_of(provider, model.keys)) is None:
        return None
    return f"the model {model.name!r} cannot be used: {problem}"


def _has_placeholder(text: str) -> bool:
    return any(isinstance(part, Placeholder) for part in parse(text))


@cache
def _known_models() -> tuple[str, ...]:
    from pydantic_ai.models import known_model_names

    return tuple(known_model_names())
