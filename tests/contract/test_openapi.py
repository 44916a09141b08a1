"""The OpenAPI document says all that the gateway does, in a form that generators turn into good code."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import yaml
from fastapi import APIRouter
from fastapi.routing import APIRoute
from openapi_spec_validator import validate

from agent_gateway import routes
from agent_gateway.routes.http.errors import STATUSES
from tests.support.json_type import Json
from tests.support.paths import ROOT

OPERATIONS = {
    "sendChatMessage": "POST /chat-messages",
    "stopChatMessage": "POST /chat-messages/{task_id}/stop",
    "followTurn": "GET /chat-messages/{task_id}/events",
    "listConversations": "GET /conversations",
    "deleteConversation": "DELETE /conversations/{conversation_id}",
    "renameConversation": "POST /conversations/{conversation_id}/name",
    "listMessages": "GET /messages",
    "rateMessage": "POST /messages/{message_id}/feedbacks",
    "listConversationVariables": "GET /conversations/{conversation_id}/variables",
    "updateConversationVariable": "PUT /conversations/{conversation_id}/variables/{variable_id}",
    "getSuggestedQuestions": "GET /messages/{message_id}/suggested",
    "uploadFile": "POST /files/upload",
    "previewFile": "GET /files/{file_id}/preview",
    "downloadFile": "GET /files/{file_id}/download",
    "getAppInfo": "GET /info",
    "getAppParameters": "GET /parameters",
    "getAppMeta": "GET /meta",
    "getAppSite": "GET /site",
    "listFeedbacks": "GET /app/feedbacks",
    "getEndUser": "GET /end-users/{end_user_id}",
    "audioToText": "POST /audio-to-text",
    "textToAudio": "POST /text-to-audio",
    "getHealth": "GET /healthz",
    "getReadiness": "GET /readyz",
}
"""Names that generated clients have as methods: new ones come, none of these ever changes."""
PROBES = {"getHealth", "getReadiness"}
EVENT_STREAM = "text/event-stream"


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_the_openapi_document_is_valid(document: Json) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_every_route_is_in_the_document(document: Json) -> None:
    """Every module in routes/ has a router, and each is part of the app, under its bare path alone."""
    names = [found.name for found in iter_modules(routes.__path__) if not found.ispkg]
    routers: list[APIRouter] = [import_module(f"agent_gateway.routes.{name}").router for name in names]
    declared = {
        f"{method} {route.path}"
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    assert {name for name, _ in operations(document)} == declared
    assert not [path for path in document["paths"] if path.startswith("/v1")]


def test_operations_have_stable_and_readable_ids(document: Json) -> None:
    named = {operation["operationId"]: name for name, operation in operations(document)}
    assert len(named) == len(list(operations(document)))
    assert named.items() >= OPERATIONS.items()
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)+", name) for name in named)


def test_every_operation_and_parameter_is_described(document: Json) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"] not in ("", "Successful Response"), (name, status)
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} == tags


def test_every_error_has_the_envelope(document: Json) -> None:
    for name, operation in operations(document):
        assert "422" not in operation["responses"]
        assert "default" in operation["responses"]
        for status, response in operation["responses"].items():
            if status.startswith(("2", "3")):
                continue
            assert list(response["content"]) == ["application/json"], (name, status)
            reference = response["content"]["application/json"]["schema"]["$ref"]
            schema = document["components"]["schemas"][reference.rpartition("/")[2]]
            assert {"code", "message", "status"} <= set(schema["required"]), (name, status)
            if status == "503":
                assert "Retry-After" in response["headers"]
    code = document["components"]["schemas"]["ErrorBody"]["properties"]["code"]["description"]
    assert all(f"`{known}` ({status})" in code for known, status in STATUSES.items())
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


def test_all_but_the_probes_need_a_key(document: Json) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["ApiKey"]["type"], schemes["ApiKey"]["scheme"]) == ("http", "bearer")
    assert (schemes["Ticket"]["in"], schemes["Ticket"]["name"]) == ("query", "ticket")
    for _, operation in operations(document):
        wanted: list[dict[str, list[str]]] = [{"ApiKey": []}]
        if operation["operationId"] in PROBES:
            wanted = []
        elif operation["operationId"] == "followTurn":
            wanted = [{"ApiKey": []}, {"Ticket": []}]
        elif operation["operationId"] == "downloadFile":
            wanted = [{"Ticket": []}]
        assert operation["security"] == wanted
        assert ("401" in operation["responses"]) == bool(wanted)


def test_streams_are_a_union_discriminated_by_event(document: Json) -> None:
    schemas = document["components"]["schemas"]
    union = schemas["ChatStreamEvent"]
    mapping = union["discriminator"]["mapping"]
    assert union["discriminator"]["propertyName"] == "event"
    assert sorted(mapping.values()) == sorted(member["$ref"] for member in union["oneOf"])
    for event, reference in mapping.items():
        schema = schemas[reference.rpartition("/")[2]]
        assert schema["properties"]["event"]["const"] == event
        assert set(schema["properties"]) == set(schema["required"]), event
    for operation_id in ("sendChatMessage", "followTurn"):
        [operation] = [one for _, one in operations(document) if one["operationId"] == operation_id]
        schema = operation["responses"]["200"]["content"][EVENT_STREAM]["schema"]
        assert schema == {"$ref": "#/components/schemas/ChatStreamEvent"}


@pytest.mark.slow
def test_the_script_writes_the_document_from_any_folder_with_any_python(
    document: Json, tmp_path: Path
) -> None:
    script = ROOT / "dev/generate_swagger_specs.py"
    # The base Python of the environment has none of the project's packages.
    python = getattr(sys, "_base_executable", sys.executable)
    command = [python, "-I", str(script), "--output-dir", "made/openapi"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    folder = tmp_path / "made/openapi"
    assert done.stdout.split() == [str(folder / "openapi.json"), str(folder / "openapi.yaml")]
    assert json.loads((folder / "openapi.json").read_text("utf-8")) == document
    assert yaml.safe_load((folder / "openapi.yaml").read_text("utf-8")) == document


def test_the_written_document_is_the_one_that_is_served(document: Json) -> None:
    """The clients in clients/ are made from it; dev/generate_swagger_specs.py writes it."""
    assert json.loads((ROOT / "openapi/openapi.json").read_text("utf-8")) == document
