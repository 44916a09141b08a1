"""What FastAPI can not derive for the OpenAPI document: the union of streamed events."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from agent_gateway.routes.stream_events import ChatStreamEvent

DESCRIPTION = """
Serves conversational agents: post a message, get its answer as a stream of events, and pick the
stream up again anywhere. Every route is also served under `/v1`.
"""


def install(app: FastAPI) -> None:
    """Make `app.openapi()` describe the events of streams, too."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=DESCRIPTION.strip(),
                routes=app.routes,
                license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                servers=[{"url": "/"}],
            )
            _add_events(document["components"]["schemas"])
            _drop_unused(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _add_events(schemas: dict[str, Any]) -> None:
    union = ChatStreamEvent.model_json_schema(
        ref_template="#/components/schemas/{model}", mode="serialization"
    )
    for name, schema in union.pop("$defs").items():
        schemas.setdefault(name, schema)
    schemas["ChatStreamEvent"] = union


def _drop_unused(document: dict[str, Any]) -> None:
    """FastAPI declares a 422 for every route with parameters; ours answer 400 (service-api.md)."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
