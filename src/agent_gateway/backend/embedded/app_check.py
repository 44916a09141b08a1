"""Finds the parts of an app that the embedded agent would ignore silently, each with its path.

The gateway knows the layers of the embedded agent, but not those of other backends. Importing this module is
cheap: the agent framework is loaded only for an app that names a model.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Final

from pydantic import ValidationError

from agent_gateway.apps.config import AppConfig, CompositionTemplate, LayerTemplate
from agent_gateway.apps.file import compositions
from agent_gateway.apps.template import Placeholder, fill, parse, strings
from agent_gateway.backend.embedded.layers import (
    KINDS,
    MCPServer,
    ToolsConfig,
    kind_of,
    mistakes,
    nearest,
    read_config,
)
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools import check
from agent_gateway.errors import ConfigError

ALMOST: Final = 0.9
"""From this similarity on, an unknown model's name is taken for a misspelt known one."""
_MANY: Final = ("prompt", "execution_context")
"""The kinds of which a composition may have several layers."""
_MODEL_KEYS: Final = {"llm": ("model", "fallback_models"), "history": ("summary_model",)}
"""The keys that name models, by the kind of the layer."""
_NAMES: Final = (
    "plain.prompt",
    "user_prompt",
    "pydantic_ai.history",
    "llm",
    "execution_context",
    "ask_human",
    "tools",
)


def problems(config: AppConfig) -> list[str]:
    """Everything that the embedded agent does not know, each with its path."""
    return [problem for path, template in compositions(config) for problem in _of_composition(path, template)]


def unknown_models(config: AppConfig) -> list[str]:
    """Notes about models whose names are close to known ones. They may be newer than this release."""
    return [
        f"{path}: {model!r} is not a model that this release knows{_meant(close)}"
        for place, template in compositions(config)
        for path, model in _models(place, template)
        if _model_problem(model) is None and model not in _known_models()
        for close in get_close_matches(model, _known_models(), n=1, cutoff=ALMOST)
    ]


def missing_programs(config: AppConfig) -> list[str]:
    """Notes about programs of tools that are not here. They may be where the gateway runs."""
    return [
        f"{path}.layers[{index}].config{place}: {words}"
        for path, template in compositions(config)
        for index, layer in enumerate(template.layers)
        if (tools := _tools(layer)) is not None
        for place, words in check.notes(tools)
    ]


async def try_servers(config: AppConfig, environ: Mapping[str, str]) -> str:
    """Connect to the MCP servers of an app's agent: each with the number of its tools; empty without any.

    Values of users are empty in this. Raises ConfigError for the first server that cannot be used.
    """
    servers: dict[str, MCPServer] = {}
    for layer in config.composition.layers:
        if kind_of(_type_of(layer)) == "tools":
            servers |= _filled(layer, environ).mcp
    if not servers:
        return ""
    from agent_gateway.backend.embedded.tools.mcp import tools_of

    try:
        found = await tools_of(servers)
    except RunFailed as failed:
        raise ConfigError(failed.error) from None
    return ", ".join(f"{name}: {len(tools)} tools" for name, tools in found.items())


def _filled(layer: LayerTemplate, environ: Mapping[str, str]) -> ToolsConfig:
    def lookup(placeholder: Placeholder) -> str:
        if placeholder.source != "env":
            return ""
        if placeholder.name not in environ:
            raise ConfigError(f"the environment variable {placeholder.name} is not set")
        return environ[placeholder.name]

    try:
        return read_config(ToolsConfig, fill(layer.config, lookup))
    except ValidationError:
        raise ConfigError(f"the config of the layer {layer.name!r} cannot be read") from None


def _of_composition(path: str, template: CompositionTemplate) -> Iterator[str]:
    said = False
    seen: set[str] = set()
    remembers = any(kind_of(_type_of(layer)) == "history" for layer in template.layers)
    for index, layer in enumerate(template.layers):
        place = f"{path}.layers[{index}]"
        kind = kind_of(_type_of(layer))
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
        yield from (f"{place}.config{inner}: {words}" for inner, words in _of_tools(layer))
        if _asks(layer) and not remembers:
            yield f"{place}: a question to a human needs a layer 'history': the answer comes in another run"
    for place, model in _models(path, template):
        if (problem := _model_problem(model)) is not None:
            yield f"{place}: {problem}"
    if not said:
        yield f"{path}: no prompt layer has a 'user' or a 'text', so every run would fail"


def _of_tools(layer: LayerTemplate) -> Iterator[tuple[str, str]]:
    """Path and words of what is wrong with the tools of a layer, beside the form of its config."""
    if (tools := _tools(layer)) is not None:
        yield from check.problems(tools)
    if kind_of(_type_of(layer)) == "tools" and isinstance(layer.config, dict):
        yield from check.values_of_users(layer.config)


def _asks(layer: LayerTemplate) -> bool:
    """Whether a run may end with a question because of this layer."""
    tools = _tools(layer)
    return kind_of(_type_of(layer)) == "ask_human" or (tools is not None and tools.asks_approval)


def _tools(layer: LayerTemplate) -> ToolsConfig | None:
    """What a layer says about tools; None for another layer, and for one that cannot be read yet."""
    if kind_of(_type_of(layer)) != "tools":
        return None
    try:
        return read_config(ToolsConfig, layer.config)
    except ValidationError:
        return None


def _type_of(layer: LayerTemplate) -> str:
    return layer.name if layer.type is None else layer.type


def _models(path: str, template: CompositionTemplate) -> Iterator[tuple[str, str]]:
    """Every name of a model, with its path."""
    for index, layer in enumerate(template.layers):
        if not isinstance(layer.config, dict):
            continue
        for key in _MODEL_KEYS.get(kind_of(_type_of(layer)) or "", ()):
            yield from strings(layer.config.get(key), f"{path}.layers[{index}].config.{key}")


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


def _meant(*names: str) -> str:
    return f"; did you mean {names[0]!r}?" if names else ""
