#!/usr/bin/env python3
"""Writes the tables of keys in docs/built-in-agent.md from the models of the layers.

    dev/generate_layer_tables.py

A table stands between `<!-- keys: NAME -->` and `<!-- end -->`, where NAME is that of a model in
src/agent_gateway/backend/embedded/layers.py. Run it in the project's environment.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from agent_gateway.backend.embedded import layers

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "built-in-agent.md"
_TABLE: Final = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TYPES: Final = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "object": "mapping",
    "array": "list",
}


def written(page: str) -> str:
    """The page with current tables."""
    return _TABLE.sub(lambda found: f"{found[1]}{table(getattr(layers, found[2]))}{found[3]}", page)


def table(model: type[BaseModel]) -> str:
    """The keys of a model: one row each, with what its docstring says."""
    schema = model.model_json_schema()
    required: list[str] = schema.get("required", [])
    rows = [
        f"| `{key}` | {_kind(field)} | {_default(key in required, field)} | {_meaning(field)} |\n"
        for key, field in schema["properties"].items()
    ]
    return "\n| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows) + "\n"


def _meaning(field: dict[str, Any]) -> str:
    return " ".join(str(field.get("description", "")).split()).replace("|", "\\|")


def _default(required: bool, field: dict[str, Any]) -> str:
    default = field.get("default")
    if required:
        return "required"
    return "none" if default in (None, [], {}, "") else f"`{json.dumps(default).strip(chr(34))}`"


def _kind(field: dict[str, Any]) -> str:
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    return " or ".join(dict.fromkeys(_one_kind(option) for option in options))


def _one_kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    bounds = _bounds(schema)
    match schema:
        case {"type": "array", "items": {"type": kind}}:
            return f"list of {_TYPES[kind]}s".replace("texts or", "text or") + bounds
        case {"type": kind}:
            return _TYPES[kind] + bounds
        case _:
            return "mapping"


def _bounds(schema: dict[str, Any]) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most = schema.get("maximum")
    words = [
        *([f"from {least:g}"] if least is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"to {most:g}"] if most is not None else []),
    ]
    return f", {' '.join(words)}" if words else ""


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
