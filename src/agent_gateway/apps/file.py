"""Reads and checks app files, with a path for each mistake, and writes an app as a file."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent_gateway.apps.config import AppConfig, CompositionTemplate
from agent_gateway.apps.template import ANSWER, Placeholder, TemplateError, parse, strings
from agent_gateway.errors import ConfigError

_RARE_BREAKS = re.compile("[\x85\u2028\u2029]")


def load_app_file(path: Path, environ: Mapping[str, str] | None) -> AppConfig:
    """Read and check an app file (YAML, UTF-8). Raises ConfigError naming the file and the field.

    Without `environ`, environment variables are not checked.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the app file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the app file {path} is not UTF-8 text") from error
    try:
        data: object = yaml.load(text, _Loader)  # noqa: S506 - it is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        # Forbidden characters, or impossible values such as a date in a thirteenth month.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    return parse_app(data, environ, str(path))


def parse_app(data: object, environ: Mapping[str, str] | None, source: str) -> AppConfig:
    """Check the data of an app and, with `environ`, that each environment variable it names is there.

    Raises ConfigError, which lists all mistakes with their paths; `source` names the origin of the data.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source} must be a mapping with at least the key 'name'")
    try:
        if problems := list(_not_json(data, "")):
            raise refusal(source, problems)
        config = AppConfig.model_validate(data)
    except ValidationError as error:
        raise refusal(source, [_in_words(item) for item in error.errors()]) from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply, or contains itself") from None
    if problems := [*_bad_versions(config), *_bad_placeholders(config, environ)]:
        raise refusal(source, problems)
    return config


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice; YAML alone drops the first without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        written: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in written:
                problem = f"the key {key.value!r} is written twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            written.add((key.tag, key.value))
        return node


def refusal(source: str, problems: list[str], backend: str = "") -> ConfigError:
    """The error that lists these problems of an app's data; `backend` names the backend that has them."""
    return ConfigError("\n  - ".join([f"{source} is not a valid app file{backend}:", *problems]))


def _not_json(value: object, path: str) -> Iterator[str]:
    """The values that YAML has but JSON has not (dates, sets, numeric keys, NaN), each with its path."""
    match value:
        case dict():
            for key, item in value.items():
                inner = f"{path}.{key}" if path else str(key)
                if not isinstance(key, str):
                    yield f"{inner}: keys must be text; put {key!r} in quotes"
                elif not _is_storable(key):
                    yield f"{path or 'the file'}: a key holds a NUL or half of a surrogate pair"
                yield from _not_json(item, inner)
        case list():
            for index, item in enumerate(value):
                yield from _not_json(item, f"{path}[{index}]")
        case str():
            if not _is_storable(value):
                yield f"{path}: the text holds a NUL or half of a surrogate pair"
        case float() if not math.isfinite(value):
            yield f"{path}: must be a finite number"
        case None | bool() | int() | float():
            pass
        case _:
            yield f"{path}: a {type(value).__name__} is not JSON data; put it in quotes to make it text"


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _in_words(error: ErrorDetails) -> str:
    """One pydantic error in words, without the input: a template may hold a secret by mistake."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    match error["type"]:
        case "missing":
            message = "is missing"
        case "extra_forbidden":
            message = "unknown key"
        case _:
            message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def template_strings(config: AppConfig) -> Iterator[tuple[str, str]]:
    """Every string of the app in which placeholders work, with its path."""
    for where, composition in compositions(config):
        for index, layer in enumerate(composition.layers):
            yield from strings(layer.config, f"{where}.layers[{index}].config")


def compositions(config: AppConfig) -> Iterator[tuple[str, CompositionTemplate]]:
    """Every composition of the app, with its path."""
    yield "composition", config.composition
    if config.naming is not None:
        yield "naming.composition", config.naming.composition
    if (composition := config.suggested_questions_after_answer.composition) is not None:
        yield "suggested_questions_after_answer.composition", composition


def _bad_versions(config: AppConfig) -> Iterator[str]:
    for where, composition in compositions(config):
        if composition.schema_version not in (1, 2):
            yield f"{where}.schema_version: must be 1 or 2"


def _bad_placeholders(config: AppConfig, environ: Mapping[str, str] | None) -> Iterator[str]:
    try:
        parse(config.files_prompt, of_file=True)
    except TemplateError as error:
        yield f"files_prompt: {error}"
    for path, text in template_strings(config):
        try:
            parts = parse(text)
        except TemplateError as error:
            yield f"{path}: {error}"
            continue
        for part in parts:
            match part:
                case Placeholder("inputs", name) if name not in config.input_names:
                    yield f"{path}: '${{inputs.{name}}}' is not a variable of user_input_form"
                case Placeholder("turn", name) if name == ANSWER and path.startswith("composition."):
                    yield f"{path}: '${{{ANSWER}}}' is not known before the turn has ended"
                case Placeholder("env", name) if environ is not None and name not in environ:
                    yield f"{path}: the environment variable {name} is not set"
                case _:
                    pass


def write_app_file(slug: str, config: AppConfig) -> str:
    """The YAML of an app, from which `load_app_file` reads the same app."""
    data = {"slug": slug, **config.model_dump(mode="json")}
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def unset_variables(config: AppConfig, environ: Mapping[str, str]) -> list[str]:
    """The names of the environment variables that the app needs and that are not set."""
    needed = {
        part.name
        for _, text in template_strings(config)
        for part in parse(text)
        if isinstance(part, Placeholder) and part.source == "env"
    }
    return sorted(needed - environ.keys())


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and uses no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Rare line breaks survive only when they are escaped.
    style = '"' if _RARE_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
