"""The parts of the OpenAPI document that FastAPI cannot derive: streamed events, and all errors."""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from agent_gateway.routes.http.errors import STATUSES
from agent_gateway.routes.schemas.stream_events import ChatStreamEvent

DESCRIPTION: Final = """
Serves conversational agents: post a message, get its answer as a stream of events, and pick the
stream up again anywhere. Every route but the probes is also served under `/v1`. Every error has the
body `ErrorBody`.
"""
TAGS: Final = [
    {"name": "chat", "description": "Turns: one message and its answer."},
    {"name": "human input", "description": "Questions of an agent to a human, and their answers."},
    {"name": "conversations", "description": "What was said."},
    {"name": "files", "description": "Files that come with queries, and files that agents make."},
    {"name": "app", "description": "The app that an API key opens."},
    {"name": "health", "description": "Probes; they need no key."},
]
REFS: Final = "#/components/schemas/{model}"
ERROR_CONTENT: Final = {"application/json": {"schema": {"$ref": REFS.format(model="ErrorBody")}}}


def install(app: FastAPI, public_url: str) -> None:
    """Make `app.openapi()` describe the events of streams and all errors, too.

    `public_url` is where clients reach this service; empty: where they got the document.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=DESCRIPTION.strip(),
                routes=app.routes,
                tags=TAGS,
                license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                servers=[{"url": public_url or "/"}],
            )
            _add_events(document["components"]["schemas"])
            _correct_errors(document)
            _correct_requests(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_events(schemas: dict[str, Any]) -> None:
    union = ChatStreamEvent.model_json_schema(ref_template=REFS, mode="serialization")
    for name, schema in union.pop("$defs").items():
        schemas.setdefault(name, schema)
    schemas["ChatStreamEvent"] = union


def _correct_errors(document: dict[str, Any]) -> None:
    """Invalid requests are 400, not FastAPI's 422. Errors that every route may have are added to each."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    codes = ", ".join(f"`{code}` ({status})" for code, status in STATUSES.items())
    schemas["ErrorBody"]["properties"]["code"]["description"] += f" One of {codes}."
    for operation in _operations(document):
        operation.setdefault("security", [])  # or a reader could not tell "no key" from "forgotten"
        responses = operation["responses"]
        responses.pop("422", None)
        if "requestBody" in operation:
            responses["413"] = {"description": "The body is too large.", "content": ERROR_CONTENT}
        for status in {"429", "503"} & responses.keys():
            responses[status]["headers"] = {
                "Retry-After": {
                    "description": "Seconds to wait before the next try.",
                    "schema": {"type": "integer"},
                }
            }
        responses["default"] = {"description": "Any other error.", "content": ERROR_CONTENT}


def _correct_requests(document: dict[str, Any]) -> None:
    """Optional parameters and bodies can be left out, but are never null. Ids are UUIDs.

    The code reads ids as text, to answer malformed ones as the contract says.
    """
    for operation in _operations(document):
        for parameter in operation.get("parameters", []):
            _without_null(parameter["schema"])
            if parameter["name"].endswith("_id"):
                parameter["schema"]["format"] = "uuid"
        for content in operation.get("requestBody", {}).get("content", {}).values():
            _without_null(content["schema"])


def _without_null(schema: dict[str, Any]) -> None:
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        if "$ref" in kinds[0]:
            schema.clear()  # the referenced schema has its own title
        schema.update(kinds[0])


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()
