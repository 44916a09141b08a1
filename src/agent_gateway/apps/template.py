"""Finds, checks and fills in placeholders in the strings of a composition template.

`${query}`, `${tenant_id}` … name values of the turn (`${answer}` only after it has ended), `${inputs.NAME}`
an input of the app's form, and `${env:VAR}` an environment variable. Directly before `{`, two dollar signs
stand for one: `$${` is the literal `${`, and `$$${query}` is a dollar sign followed by the query.

Only the template is searched for placeholders. Filled-in values are never searched, so a user's text cannot
reach an environment variable.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

TURN_NAMES: Final = (
    "query",
    "files",
    "tenant_id",
    "app_id",
    "user_id",
    "conversation_id",
    "message_id",
    "agent_id",
    "trace_id",
    "trace_session_id",
)
"""Placeholders without a prefix: values that every turn has."""
ANSWER: Final = "answer"
"""The answer of a turn: only the runs after it have it."""
FILE_NAMES: Final = ("type", "name", "mime_type", "size", "url")
"""The placeholders of `files_prompt`: properties of a file."""

_OPENING = re.compile(r"(\$+)\{")
_INPUT = re.compile(r"inputs\.([^\s{]+)")
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_WORD = re.compile(r"[A-Za-z0-9_.:-]+")


class TemplateError(ValueError):
    """A string breaks the grammar of placeholders; the text says how, for the operator."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `${…}`: the source of its value, and its name there."""

    source: Literal["turn", "inputs", "env"]
    name: str


@lru_cache(maxsize=1024)
def parse(text: str, *, of_file: bool = False) -> tuple[str | Placeholder, ...]:
    """Split a string into literal text and placeholders, in order. Raises TemplateError.

    `of_file`: the placeholders are those of a file. The same few templates are parsed in every turn, so the
    last ones are remembered.
    """
    parts: list[str | Placeholder] = []
    literal = ""
    position = 0
    while opening := _OPENING.search(text, position):
        dollars = len(opening[1])
        literal += text[position : opening.start()] + "$" * (dollars // 2)
        position = opening.end()
        if dollars % 2 == 0:
            literal += "{"
            continue
        inner, closed, _ = text[position:].partition("}")
        if not closed:
            raise TemplateError("'${' is never closed (write '$${' for a literal '${')")
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_file_placeholder(inner) if of_file else _placeholder(inner))
        position += len(inner) + 1
    literal += text[position:]
    if literal:
        parts.append(literal)
    return tuple(parts)


def _placeholder(inner: str) -> Placeholder:
    if inner in TURN_NAMES or inner == ANSWER:
        return Placeholder("turn", inner)
    if match := _INPUT.fullmatch(inner):
        return Placeholder("inputs", match[1])
    if match := _ENV.fullmatch(inner):
        return Placeholder("env", match[1])
    if _WORD.fullmatch(inner):
        known = ", ".join([*TURN_NAMES, "inputs.NAME", "env:VAR"])
        raise TemplateError(f"unknown placeholder '${{{inner}}}' (known: {known})")
    raise TemplateError(f"malformed placeholder '${{{inner}}}' (write '$${{' for a literal '${{')")


def _file_placeholder(inner: str) -> Placeholder:
    if inner in FILE_NAMES:
        return Placeholder("turn", inner)
    raise TemplateError(f"unknown placeholder '${{{inner}}}' (known here: {', '.join(FILE_NAMES)})")


def strings(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Every string among the values of JSON data, with its path."""
    match value:
        case str():
            yield path, value
        case list():
            for index, item in enumerate(value):
                yield from strings(item, f"{path}[{index}]")
        case dict():
            for key, item in value.items():
                yield from strings(item, f"{path}.{key}")
        case _:
            pass


def uses(value: object, placeholder: Placeholder) -> bool:
    """Whether JSON data holds this placeholder anywhere. Raises TemplateError."""
    return any(placeholder in parse(text) for _, text in strings(value, ""))


def fill(value: Any, lookup: Callable[[Placeholder], Any]) -> Any:
    """A copy of JSON data in which `lookup` gives the value of every placeholder.

    A string that is one lone placeholder becomes the value itself, of any JSON type. In a longer string, a
    string is inserted as it is, null as an empty text, and any other value as JSON text.
    Raises TemplateError for a malformed string, and the errors of `lookup`.
    """
    match value:
        case str():
            return _fill_string(parse(value), lookup)
        case list():
            return [fill(item, lookup) for item in value]
        case dict():
            return {key: fill(item, lookup) for key, item in value.items()}
        case _:
            return value


def _fill_string(parts: tuple[str | Placeholder, ...], lookup: Callable[[Placeholder], Any]) -> Any:
    match parts:
        case [Placeholder() as only]:
            return lookup(only)
        case _:
            return "".join(part if isinstance(part, str) else _text(lookup(part)) for part in parts)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
