"""What can be known about the tools of an app before it runs. Starts no server.

Importing this module loads neither the agent framework nor the libraries of MCP.
"""

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import JsonValue

from agent_gateway.apps.template import Placeholder, parse, strings
from agent_gateway.backend.embedded.layers import OpenAPITools, ToolsConfig, nearest
from agent_gateway.backend.embedded.tools.functions import FunctionMissing, load_function
from agent_gateway.backend.embedded.tools.openapi import DocumentError, read_api

INSTALL: Final = "pip install 'agent-gateway[mcp]'"
HUMAN: Final = "ask_human"
"""The name of the tool that asks humans: no other may have it."""
_FREE: Final = ("env", "headers")
"""The keys of tools that may hold values of users."""
_OWN: Final = ("tenant_id", "app_id", "agent_id")
"""The values of turns that come from the app itself."""


def values_of_users(config: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Path and words of each place where a user would say which tools there are, or what they may do."""
    for path, text in strings({group: _fixed(entries) for group, entries in config.items()}, ""):
        if (found := _of_user(text)) is not None:
            yield path, f"{found} comes from users: only values in 'env' and 'headers' may"


def _fixed(entries: JsonValue) -> JsonValue:
    """The entries of a group without what may come from users."""
    match entries:
        case dict():
            return {name: _without_free(entry) for name, entry in entries.items()}
        case list():
            return [_without_free(entry) for entry in entries]
        case _:
            return entries


def _without_free(entry: JsonValue) -> JsonValue:
    if not isinstance(entry, dict):
        return entry
    # A placeholder in the place of the whole mapping would let users choose the names in it.
    return {key: value for key, value in entry.items() if key not in _FREE or not isinstance(value, dict)}


def _of_user(text: str) -> str | None:
    for part in parse(text):
        if isinstance(part, Placeholder) and part.source == "inputs":
            return f"${{inputs.{part.name}}}"
        if isinstance(part, Placeholder) and part.source == "turn" and part.name not in _OWN:
            return f"${{{part.name}}}"
    return None


def problems(config: ToolsConfig) -> Iterator[tuple[str, str]]:
    """Path and words of each thing because of which runs would fail."""
    names: dict[str, str] = {HUMAN: "the tool that asks humans"}
    if config.mcp and importlib.util.find_spec("fastmcp") is None:
        yield ".mcp", f"MCP servers need an extra: {INSTALL}"
    for name, server in config.mcp.items():
        for tool in server.allow or ():
            full = tool if server.prefix is None else f"{server.prefix}_{tool}"
            yield from _taken(names, full, f".mcp.{name}", "give one of their servers a 'prefix'")
        if server.allow is not None and isinstance(server.needs_approval, list):
            yield from _unknown(f".mcp.{name}.needs_approval", server.needs_approval, server.allow, "allow")
    for name, api in config.openapi.items():
        yield from _of_api(f".openapi.{name}", api, names)
    for index, function in enumerate(config.functions):
        path = f".functions[{index}]"
        try:
            found = load_function(function.function)
        except FunctionMissing as missing:
            yield path, str(missing)
        else:
            yield from _taken(names, str(getattr(found, "__name__", "")), path, "rename one of them")


def _of_api(path: str, api: OpenAPITools, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(api.needs_approval, list):
        yield from _unknown(f"{path}.needs_approval", api.needs_approval, api.operations, "operations")
    if _has_placeholder(api.document) or _has_placeholder(api.base_url):
        return
    try:
        _, found = read_api(api)
    except DocumentError as error:
        yield path, str(error)
        return
    for operation in found:
        yield from _taken(names, operation.tool, path, "rename one of them")


def _unknown(path: str, given: list[str], known: list[str], key: str) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(given):
        if name not in known:
            yield f"{path}[{index}]", f"{name!r} is not one of {key!r}{nearest(name, known)}"


def _taken(names: dict[str, str], name: str, path: str, what: str) -> Iterator[tuple[str, str]]:
    if name in names:
        yield path, f"the tool {name!r} has the name of {names[name]}: {what}"
    names.setdefault(name, f"one of {path.removeprefix('.')}")


def notes(config: ToolsConfig) -> Iterator[tuple[str, str]]:
    """Path and words of what may be wrong, or may only be different where the gateway runs."""
    for name, server in config.mcp.items():
        if server.command is None or _has_placeholder(server.command[0]):
            continue
        if shutil.which(server.command[0]) is None:
            yield f".mcp.{name}.command[0]", f"the program {server.command[0]!r} is not on the PATH here"


def _has_placeholder(value: object) -> bool:
    return isinstance(value, str) and any(isinstance(part, Placeholder) for part in parse(value))
