"""Reads and checks app files, with a path for each mistake, and writes an app as a file."""

import math
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.nodes import Node, ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver

from agent_gateway.apps.config import AppConfig, CompositionTemplate
from agent_gateway.apps.template import ANSWER, Placeholder, TemplateError, parse, strings
from agent_gateway.errors import ConfigError

YAML_VERSION: Final = (1, 1)
_DUPLICATE = re.compile(r'key "(.*?)"(?: with value|$)', re.DOTALL)
_TEXT = re.compile(r"[yYnN]|[-+]?[0-9][0-9_]*([eE][-+]?[0-9]+|\.[0-9_]*[eE][0-9]+)")
_ESCAPED = re.compile(r"[^\t\n -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


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
        data = _read_yaml(text)
    except DuplicateKeyError as error:
        # The text of the library shows both values, which may be secret.
        key = _DUPLICATE.search(error.problem or "")
        problem = f"the key {key[1] if key else ''!r} is written twice"
        raise _not_yaml(path, error.problem_mark, problem) from None
    except MarkedYAMLError as error:
        raise _not_yaml(path, error.problem_mark, error.problem or error.context) from error
    except (YAMLError, ValueError) as error:
        # Forbidden characters, or impossible values such as a date in a thirteenth month.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply") from None
    return parse_app(data, environ, str(path))


def _not_yaml(path: Path, mark: StreamMark | None, problem: str) -> ConfigError:
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return ConfigError(f"{path} is not valid YAML{where}: {problem}")


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


def _read_yaml(text: str) -> object:
    """The plain data of a YAML 1.1 text. A duplicate key is refused."""
    reader = YAML(typ="safe", pure=True)
    # Existing app files were written for 1.1, where a bare `on` is true and a bare `012` is ten.
    reader.version, reader.Resolver = YAML_VERSION, _Resolver
    return reader.load(text)


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
    writer = YAML(typ="safe", pure=True)
    writer.Representer, writer.Resolver = _Representer, _Resolver
    writer.default_flow_style, writer.width, writer.sort_base_mapping_type_on_output = False, 100, False
    written = StringIO()
    writer.dump(data, written)
    return written.getvalue()


def unset_variables(config: AppConfig, environ: Mapping[str, str]) -> list[str]:
    """The names of the environment variables that the app needs and that are not set."""
    needed = {
        part.name
        for _, text in template_strings(config)
        for part in parse(text)
        if isinstance(part, Placeholder) and part.source == "env"
    }
    return sorted(needed - environ.keys())


class _Representer(SafeRepresenter):
    """Writes texts of several lines as blocks, and uses no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_str(self, data: str) -> ScalarNode:
        # Rare line breaks and control characters survive only when they are escaped.
        style = '"' if _ESCAPED.search(data) else "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_float(self, data: float) -> ScalarNode:
        node: ScalarNode = super().represent_float(data)
        if "." not in node.value:
            # Version 1.1 knows no number such as 5e-324.
            node.value = node.value.replace("e", ".0e")
        return node


_Representer.add_representer(str, _Representer.represent_str)
_Representer.add_representer(float, _Representer.represent_float)


class _Resolver(VersionedResolver):
    """Version 1.1, but `y`, `n` and numbers such as `1e3` are text, as in existing app files."""

    def __init__(self, version: object, loader: YAML) -> None:
        super().__init__(version=YAML_VERSION, loader=loader)

    def resolve(self, kind: type[Node], value: str | None, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0] and _TEXT.fullmatch(value or ""):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)
