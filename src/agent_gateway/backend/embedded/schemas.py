"""Checks the JSON Schemas of structured output, and answers against them."""

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from agent_gateway.json_types import JsonObject

MAX_MISFITS: Final = 5
"""Misfits of one answer that the model is told."""
_OWN: Final = "#/$defs/"


def checked_schema(schema: JsonObject) -> JsonObject:
    """The schema; raises ValueError with the path of a mistake in it, and with none of its values."""
    # Only a composition with a schema needs this library.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    rules = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    if (mistake := best_match(rules.iter_errors(schema))) is not None:
        raise ValueError(f"is no JSON Schema: {_path(mistake.absolute_path)} breaks {mistake.validator!r}")
    if schema.get("type") != "object":
        raise ValueError("must be a JSON Schema with 'type: object'")
    given = schema.get("$defs")
    definitions = given if isinstance(given, dict) else {}
    uses = {name: set(_references(part)) for name, part in definitions.items()}
    root = {key: value for key, value in schema.items() if key != "$defs"}
    if not {*_references(root)}.union(*uses.values()) <= definitions.keys():
        raise ValueError("has a '$ref' to a definition that is not there")
    try:
        TopologicalSorter(uses).prepare()
    except CycleError:
        # The agent framework puts each definition in the place of its references.
        raise ValueError("has a '$ref' that leads back to itself, which no schema here may have") from None
    return schema


def misfits(schema: JsonObject, answer: object) -> list[str]:
    """What does not fit in an answer, in words for the model that gave it."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # With a registry of its own it never fetches anything.
    errors = Draft202012Validator(schema, registry=Registry()).iter_errors(answer)
    return [f"{_path(error.absolute_path)}: {error.message}" for error in errors][:MAX_MISFITS]


def _path(steps: Iterable[str | int]) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".") or "the whole"


def _references(part: Any) -> Iterator[str]:
    """The names of the definitions that a part of a schema refers to itself."""
    match part:
        case list():
            for item in part:
                yield from _references(item)
        case Mapping():
            for key, value in part.items():
                if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                    if not value.startswith(_OWN):
                        raise ValueError(f"has a {key!r} that leads elsewhere than to its own '$defs'")
                    yield value.removeprefix(_OWN)
                else:
                    yield from _references(value)
        case _:
            pass
