"""App files: read and checked, each mistake with its place; and written from an app."""

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

    Without `environ` nothing is said of environment variables.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the app file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the app file {path} is not UTF-8 text") from error
    try:
        data = _read_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path} is not valid YAML{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        # Impossible characters or impossible values, such as a date in a thirteenth month.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    return parse_app(data, environ, str(path))


def parse_app(data: Any, environ: Mapping[str, str] | None, source: str) -> AppConfig:
    """Check the data of an app and, if one is given, that the environment has every variable it names.

    Raises ConfigError listing all that is wrong, each with its path; `source` says whose data it is.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source} must be a mapping with at least the key 'name'")
    try:
        if problems := list(_not_json(data, "")):
            raise refusal(source, problems)
        config = AppConfig.model_validate(data)
    except ValidationError as error:
        raise refusal(source, [_told(item) for item in error.errors()]) from None
    except RecursionError:
        raise ConfigError(f"{source} is nested too deeply, or holds itself") from None
    if problems := [*_bad_versions(config), *_bad_placeholders(config, environ)]:
        raise refusal(source, problems)
    return config


def _read_yaml(text: str) -> Any:
    """Plain data of a YAML text. A key written twice is refused; YAML alone drops the first in silence."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_double_keys(node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_double_keys(node: yaml.Node, visited: set[int]) -> None:
    if id(node) in visited:  # an alias, which may even lead back to where it stands
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_double_keys(item, visited)
    if isinstance(node, yaml.MappingNode):
        written: set[tuple[str, str]] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in written:
                    problem = f"the key {key.value!r} is written twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                written.add((key.tag, key.value))
            _refuse_double_keys(value, visited)


def refusal(source: str, problems: list[str], backend: str = "") -> ConfigError:
    """The error that lists these problems of an app's data; `backend` says for which one they are."""
    return ConfigError("\n  - ".join([f"{source} is not a valid app file{backend}:", *problems]))


def _not_json(value: Any, path: str) -> Iterator[str]:
    """YAML knows more than JSON: dates, sets, numeric keys, NaN. Say where, instead of guessing."""
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


def _told(error: ErrorDetails) -> str:
    """One pydantic error in words. Never with the input: a template may hold a secret by mistake."""
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
    """Every string of the app in which placeholders work, each with its place."""
    for where, composition in compositions(config):
        for index, layer in enumerate(composition.layers):
            yield from strings(layer.config, f"{where}.layers[{index}].config")


def compositions(config: AppConfig) -> Iterator[tuple[str, CompositionTemplate]]:
    """Every composition of the app, with its place."""
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
    """The YAML of an app, from which `load_app_file` makes the same app again."""
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
    """Writes texts of several lines as people do, and everything where it stands."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # The rarer line breaks come back as themselves only from where they are escaped.
    style = '"' if _RARE_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
