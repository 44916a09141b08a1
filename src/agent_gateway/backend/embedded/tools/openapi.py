"""Operations of an OpenAPI document, each as what a model may fill in and where that goes in a request.

Reads OpenAPI 3.0 and 3.1. References within the document are followed, those to other documents are not.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import yaml

from agent_gateway.backend.embedded.layers import OpenAPITools, nearest

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
BODY: Final = "body"
MAX_DOCUMENT: Final = 8 * 1024 * 1024
"""Bytes of a document."""
MAX_DESCRIPTION: Final = 1_000
"""Characters about an operation that the model gets."""
_IGNORED_HEADERS: Final = ("accept", "content-type", "authorization")
"""OpenAPI says that parameters with these names are ignored."""
_IN_PATH: Final = re.compile(r"\{([^{}]+)\}")
_SCHEMAS: Final = "#/components/schemas/"
_LITERAL: Final = ("const", "default", "enum", "example", "examples")
"""Keys of a schema whose values are data, not schemas."""
_NAMED: Final = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
"""Keys of a schema whose values are schemas by names, which may be any."""


class DocumentError(Exception):
    """A document, or an operation of it, cannot be used. The text says why, for the operator."""


@dataclass(frozen=True)
class Parameter:
    """One value that the model gives."""

    key: str
    """Its name for the model."""
    name: str
    """Its name in the request."""
    place: Literal["path", "query", "header"]


@dataclass(frozen=True)
class Operation:
    """One operation: a tool for the model."""

    id: str
    """Its `operationId`."""
    tool: str
    """The name of the tool."""
    method: str
    path: str
    description: str
    schema: Mapping[str, Any]
    """The JSON Schema of the arguments."""
    parameters: tuple[Parameter, ...]
    has_body: bool


def read_api(config: OpenAPITools) -> tuple[str, list[Operation]]:
    """Where an API is, and its operations that the model may call. Raises DocumentError."""
    document = read_document(config.document)
    found = operations(document, config.operations, config.headers)
    return base_url(document, config.base_url), found


def read_document(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The document itself, from a path (JSON or YAML) if it is one. Raises DocumentError."""
    if not isinstance(document, str):
        return document
    path = Path(document)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DocumentError(f"{document}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
    if status.st_size > MAX_DOCUMENT:
        raise DocumentError(f"{document}: is larger than {MAX_DOCUMENT} bytes")
    return _parsed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _parsed(path: Path, _modified: int, _size: int) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError):
        raise DocumentError(f"{path}: is neither JSON nor YAML") from None
    if not isinstance(found, dict):
        raise DocumentError(f"{path}: is no OpenAPI document")
    return found


def base_url(document: Mapping[str, Any], given: str | None) -> str:
    """Where the API is. Raises DocumentError when nothing says it."""
    servers = document.get("servers")
    if not given and isinstance(servers, list) and servers and isinstance(servers[0], dict):
        given = str(servers[0].get("url") or "")
    parts = urlsplit(given or "")
    if parts.scheme not in ("http", "https") or not parts.hostname or "{" in (given or ""):
        raise DocumentError("the document names no server with a whole URL, so 'base_url' is needed")
    if parts.query or parts.fragment:
        raise DocumentError("the base URL must have no '?' and no '#'")
    return (given or "").rstrip("/")


def operations(document: Mapping[str, Any], wanted: list[str], headers: Mapping[str, str]) -> list[Operation]:
    """The wanted operations, without the parameters that the operator's headers set. Raises DocumentError."""
    if not str(document.get("openapi", "")).startswith("3."):
        raise DocumentError("the document is not OpenAPI 3.x")
    known = {
        str(found["operationId"]): (path, method, item, found) for path, method, item, found in _all(document)
    }
    made: list[Operation] = []
    for name in wanted:
        if name not in known:
            raise DocumentError(f"the document has no operation {name!r}{nearest(name, known)}")
        try:
            made.append(_Reader(document, headers).operation(name, *known[name]))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise DocumentError(f"the operation {name!r} is malformed") from None
    return made


def _all(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    paths = document.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        for method in METHODS:
            match item:
                case {**methods} if isinstance(found := methods.get(method), dict) and "operationId" in found:
                    yield str(path), method, methods, found


class _Reader:
    """Reads one operation."""

    def __init__(self, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        self._document = document
        self._set = {name.lower() for name in headers} | set(_IGNORED_HEADERS)
        self._definitions: dict[str, Any] = {}

    def operation(
        self, name: str, path: str, method: str, item: Mapping[str, Any], found: Mapping[str, Any]
    ) -> Operation:
        properties: dict[str, Any] = {}
        required: list[str] = []
        parameters: list[Parameter] = []
        for given in self._parameters(item, found):
            place = given["in"]
            if place == "header" and given["name"].lower() in self._set:
                continue
            if place not in ("path", "query", "header"):
                if given.get("required"):
                    raise DocumentError(
                        f"the operation {name!r} needs a {place} parameter: there are none here"
                    )
                continue
            parameter = Parameter(_free(_key(given["name"]), properties), given["name"], place)
            parameters.append(parameter)
            properties[parameter.key] = self._described(given)
            if place == "path" or given.get("required"):
                required.append(parameter.key)
        if {one.name for one in parameters if one.place == "path"} != set(_IN_PATH.findall(path)):
            raise DocumentError(f"the operation {name!r}: its path and its parameters do not fit")
        body = self._body(name, found)
        if body is not None:
            schema, needed = body
            properties[BODY] = schema
            required += [BODY] if needed else []
        schema = {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
        if self._definitions:
            schema["$defs"] = self._definitions
        words = [str(found.get(key) or "").strip() for key in ("summary", "description")]
        said = "\n\n".join(filter(None, words)) or f"{method.upper()} {path}"
        return Operation(
            name,
            _key(name),
            method.upper(),
            path,
            said[:MAX_DESCRIPTION],
            schema,
            tuple(parameters),
            body is not None,
        )

    def _parameters(self, item: Mapping[str, Any], found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Those of the path and of the operation, which replaces the former."""
        both = [*(item.get("parameters") or []), *(found.get("parameters") or [])]
        resolved = [self._resolved(given) for given in both]
        return list({(given["name"], given["in"]): given for given in resolved}.values())

    def _described(self, given: Mapping[str, Any]) -> Any:
        schema = given.get("schema")
        if schema is None:
            content = given.get("content") or {}
            schema = next((media.get("schema") for media in content.values()), None)
        made = self._schema(schema or {})
        if given.get("description") and isinstance(made, dict):
            made = {"description": given["description"], **made}
        return made

    def _body(self, name: str, found: Mapping[str, Any]) -> tuple[Any, bool] | None:
        if not found.get("requestBody"):
            return None
        body = self._resolved(found["requestBody"])
        content = body.get("content") or {}
        media = next((content[kind] for kind in content if _is_json(kind)), None)
        if media is None:
            if body.get("required"):
                raise DocumentError(f"the operation {name!r} takes a body that is not JSON")
            return None
        return self._schema(media.get("schema") or {}), bool(body.get("required"))

    def _resolved(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(10):
            if "$ref" not in given:
                return given
            given = self._target(given["$ref"])
        raise DocumentError("a reference of the document leads to itself")

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise DocumentError(f"the reference {reference!r} is not within the document")
        found: Any = self._document
        for part in reference[2:].split("/"):
            step = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or step not in found:
                raise DocumentError(f"the reference {reference!r} leads nowhere")
            found = found[step]
        return found

    def _schema(self, schema: Any) -> Any:
        """The schema as JSON Schema, its references below `$defs`."""
        match schema:
            case {"$ref": str(reference)}:
                name = _key(reference.removeprefix(_SCHEMAS) if reference.startswith(_SCHEMAS) else reference)
                if name not in self._definitions:
                    self._definitions[name] = {}  # it may refer to itself
                    self._definitions[name] = self._schema(self._target(reference))
                return {"$ref": f"#/$defs/{name}"}
            case dict():
                made = {
                    key: self._keyword(key, value)
                    for key, value in schema.items()
                    if key != "nullable" and not key.startswith("x-")
                }
                if schema.get("nullable") is True and isinstance(made.get("type"), str):
                    made["type"] = [made["type"], "null"]
                return made
            case list():
                return [self._schema(value) for value in schema]
            case _:
                return schema

    def _keyword(self, key: str, value: Any) -> Any:
        if key in _NAMED and isinstance(value, dict):
            return {name: self._schema(one) for name, one in value.items()}
        return value if key in _LITERAL else self._schema(value)


def _is_json(kind: str) -> bool:
    kind = kind.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _key(name: str) -> str:
    """A name that every provider takes."""
    return re.sub("[^a-zA-Z0-9_-]", "_", name)[:64] or "_"


def _free(key: str, taken: Mapping[str, object]) -> str:
    """The key, or one like it that is not taken: a path and a query may have a parameter of the same name."""
    return key if key not in taken and key != BODY else _free(f"{key[:62]}_2", taken)
