"""What OpenAPI documents may say: what is refused, and what schema the model gets."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.backend.embedded.tools.openapi import (
    MAX_DOCUMENT,
    DocumentError,
    base_url,
    operations,
    read_document,
)
from tests.support.json_type import Json

TEXT: Json = {"type": "string"}


def parameter(name: str, place: str, **more: Any) -> Json:
    return {"name": name, "in": place, "schema": TEXT, **more}


def document(operation: Json | None = None, path: str = "/cities", **more: Any) -> Json:
    found = {"operationId": "find", **(operation or {})}
    return {"openapi": "3.1.0", "paths": {path: {"post": found}}, **more}


def made(given: Json, **headers: str) -> Json:
    """The schema of the one operation."""
    [operation] = operations(given, ["find"], headers)
    return dict(operation.schema)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (document({"parameters": [parameter("c", "cookie", required=True)]}), "needs a cookie parameter"),
        (document(path="/cities/{id}"), "its path and its parameters do not fit"),
        (document({"parameters": [{"in": "query"}]}), "the operation 'find' is malformed"),
        (document({"parameters": [{"$ref": "#/components/nothing"}]}), "leads nowhere"),
        (document({"parameters": [{"$ref": "other.yaml#/x"}]}), "is not within the document"),
        (
            document({"parameters": [{"$ref": "#/loop"}]}, loop={"$ref": "#/loop"}),
            "a reference of the document leads to itself",
        ),
        (
            document({"requestBody": {"required": True, "content": {"text/csv": {}}}}),
            "takes a body that is not JSON",
        ),
        ({"openapi": "3.1.0", "paths": []}, "has no operation 'find'"),
        ({"openapi": "3.1.0", "paths": {"/cities": ["post"]}}, "has no operation 'find'"),
    ],
)
def test_an_operation_that_cannot_be_called_is_refused(given: Json, why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        made(given)


def test_what_need_not_be_sent_is_left_out() -> None:
    optional: Json = {"requestBody": {"content": {"text/csv": {}}}, "parameters": [parameter("c", "cookie")]}
    assert made(document(optional))["properties"] == {}


def test_a_header_that_the_operator_sets_is_none_of_the_models() -> None:
    given = document({"parameters": [parameter("X-Key", "header", required=True), parameter("q", "query")]})
    assert list(made(given, **{"x-key": "secret"})["properties"]) == ["q"]
    assert list(made(given)["properties"]) == ["X-Key", "q"]


def test_two_parameters_of_one_name_and_one_called_body_have_names_of_their_own() -> None:
    given = [parameter("id", "path", required=True), parameter("id", "query"), parameter("body", "query")]
    [operation] = operations(document({"parameters": given}, "/cities/{id}"), ["find"], {})
    assert [(one.key, one.name, one.place) for one in operation.parameters] == [
        ("id", "id", "path"),
        ("id_2", "id", "query"),
        ("body_2", "body", "query"),
    ]


def test_a_schema_of_the_document_becomes_one_that_models_know() -> None:
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/components/t"}}}}
    size = {"type": "integer", "nullable": True, "x-unit": "m", "enum": [1, {"$ref": "kept"}]}
    content = {"application/merge-patch+json": {"schema": {"allOf": [{"$ref": "#/components/t"}, size]}}}
    as_content = {"name": "q", "in": "query", "content": {"application/json": {"schema": TEXT}}}
    given = document(
        {
            "parameters": [{**as_content, "description": "What to find"}],
            "requestBody": {"required": True, "content": content},
        },
        components={"t": tree},
    )
    schema = made(given)
    assert schema["properties"]["q"] == {"description": "What to find", "type": "string"}
    reference, sized = schema["properties"]["body"]["allOf"]
    assert sized == {"type": ["integer", "null"], "enum": [1, {"$ref": "kept"}]}
    name = reference["$ref"].removeprefix("#/$defs/")
    assert schema["$defs"][name]["properties"]["below"]["items"] == reference
    assert schema["required"] == ["body"]


@pytest.mark.parametrize(
    ("servers", "given", "url"),
    [
        ([{"url": "https://a.test/v1/"}], None, "https://a.test/v1"),
        ([{"url": "https://a.test"}], "http://b.test/", "http://b.test"),
    ],
)
def test_the_operator_says_where_an_api_is_or_the_document_does(servers: Any, given: str, url: str) -> None:
    assert base_url({"servers": servers}, given) == url


@pytest.mark.parametrize("given", ["https://a.test?x=1", "https://a.test#x", "/v1", "ftp://a.test"])
def test_an_address_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(DocumentError):
        base_url({}, given)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"- a list", "is no OpenAPI document"),
        (b"{", "is neither JSON nor YAML"),
        (b"\xff\xfe\xff", "is neither JSON nor YAML"),
        (b" " * (MAX_DOCUMENT + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "api.json"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=why):
        read_document(str(path))


def test_a_file_and_a_folder_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "\0"):
        with pytest.raises(DocumentError):
            read_document(str(path))
    (tmp_path / "api.json").write_text(json.dumps(document()))
    assert read_document(str(tmp_path / "api.json")) == document()
