"""Finds the parts of an app that the embedded agent would ignore silently, each with its path.

The gateway knows the layers of the embedded agent, but not those of other backends. Importing this module is
cheap: the agent framework is loaded only for an app that names a model.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import ValidationError

from agent_gateway.apps.config import AppConfig, CompositionTemplate, LayerTemplate
from agent_gateway.apps.file import compositions
from agent_gateway.apps.template import Placeholder, fill
from agent_gateway.backend.embedded.layers import (
    KINDS,
    MCPServer,
    ToolsConfig,
    kind_of,
    mistakes,
    nearest,
    read_config,
)
from agent_gateway.backend.embedded.model_check import model_notes, model_problems, type_of
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools import check
from agent_gateway.errors import ConfigError

_MANY: Final = ("prompt", "execution_context")
"""The kinds of which a composition may have several layers."""
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


def notes(config: AppConfig) -> list[str]:
    """What the operator should look at, although it may be right: names that are nearly those of known
    models (they may be newer than this release), and keys that are not in the environment of this command."""
    return [note for path, template in compositions(config) for note in model_notes(path, template)]


def missing_programs(config: AppConfig) -> list[str]:
    """Notes about programs of tools that are not here. They may be where the gateway runs."""
    return [
        f"{path}.layers[{index}].config{place}: {words}"
        for path, template in compositions(config)
        for index, layer in enumerate(template.layers)
        if (tools := _tools(layer)) is not None
        for place, words in check.notes(tools)
    ]


def model_named(config: AppConfig) -> str:
    """The model in the layer of an app's agent, as it is written there; empty without one."""
    for layer in config.composition.layers:
        if kind_of(type_of(layer)) == "llm" and isinstance(layer.config, dict):
            return str(layer.config.get("model") or "")
    return ""


async def try_servers(config: AppConfig, environ: Mapping[str, str]) -> str:
    """Connect to the MCP servers of an app's agent: each with the number of its tools; empty without any.

    Values of users are empty in this. Raises ConfigError for the first server that cannot be used.
    """
    servers: dict[str, MCPServer] = {}
    for layer in config.composition.layers:
        if kind_of(type_of(layer)) == "tools":
            servers |= _filled(layer, environ).mcp
    if not servers:
        return ""
    from agent_gateway.backend.embedded.tools.mcp import tools_of

    try:
        found = await tools_of(servers)
    except RunFailed as failed:
        raise ConfigError(failed.error) from None
    return ", ".join(
        f"{name}: {len(tools)} tool{'' if len(tools) == 1 else 's'}" for name, tools in found.items()
    )


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
    remembers = any(kind_of(type_of(layer)) == "history" for layer in template.layers)
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
        yield from (f"{place}.config{inner}: {words}" for inner, words in _of_tools(layer))
        if _asks(layer) and not remembers:
            yield f"{place}: a question to a human needs a layer 'history': the answer comes in another run"
    yield from model_problems(path, template)
    if not said:
        yield f"{path}: no prompt layer has a 'user' or a 'text', so every run would fail"


def _of_tools(layer: LayerTemplate) -> Iterator[tuple[str, str]]:
    """Path and words of what is wrong with the tools of a layer, beside the form of its config."""
    if (tools := _tools(layer)) is not None:
        yield from check.problems(tools)
    if kind_of(type_of(layer)) == "tools" and isinstance(layer.config, dict):
        yield from check.values_of_users(layer.config)


def _asks(layer: LayerTemplate) -> bool:
    """Whether a run may end with a question because of this layer."""
    tools = _tools(layer)
    return kind_of(type_of(layer)) == "ask_human" or (tools is not None and tools.asks_approval)


def _tools(layer: LayerTemplate) -> ToolsConfig | None:
    """What a layer says about tools; None for another layer, and for one that cannot be read yet."""
    if kind_of(type_of(layer)) != "tools":
        return None
    try:
        return read_config(ToolsConfig, layer.config)
    except ValidationError:
        return None
