"""An HTTP API of the tests: it describes itself by OpenAPI, and keeps the requests that it gets."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.fakes.mcp_server import PIXEL
from tests.support.gateway_server import BOUND, wait_until

SECRET = "words-of-an-api-2718"
_STRING = {"type": "string"}


def _operation(name: str, *parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"operationId": name, "summary": f"Do {name}.", "parameters": list(parameters), **more}


def document(url: str) -> dict[str, Any]:
    """Its OpenAPI document."""
    city_id = {"name": "id", "in": "path", "required": True, "schema": _STRING, "description": "Which city."}
    tags = {"name": "tag", "in": "query", "schema": {"type": "array", "items": _STRING}}
    unit = {"name": "X-Unit", "in": "header", "schema": _STRING}
    secret = {"name": "X-Token", "in": "header", "required": True, "schema": _STRING}
    city = {"$ref": "#/components/schemas/City"}
    body = {"required": True, "content": {"application/json": {"schema": city}}}
    return {
        "openapi": "3.0.3",
        "servers": [{"url": f"{url}/v1"}],
        "paths": {
            "/cities/{id}": {
                "parameters": [{"$ref": "#/components/parameters/Id"}],
                "get": _operation("getCity", tags, unit, secret),
            },
            "/cities": {"post": _operation("cities/create", requestBody=body)},
            "/picture": {"get": _operation("getPicture")},
            "/away": {"get": _operation("goAway")},
            "/cookie": {"get": _operation("getCookie")},
            "/hang": {"get": _operation("hang")},
            "/much": {"get": _operation("getMuch")},
        },
        "components": {
            "parameters": {"Id": city_id},
            "schemas": {
                "City": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": _STRING,
                        "mayor": {"type": "string", "nullable": True},
                        "enum": {"$ref": "#/components/schemas/City"},
                        "x-nullable": _STRING,
                        "twins": {"type": "array", "items": city},
                    },
                }
            },
        },
    }


@dataclass
class Asked:
    """One request that the API got."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpApi:
    """The running API."""

    url: str
    asked: list[Asked] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        """Its OpenAPI document."""
        return document(self.url)


async def _city(request: Request) -> Response:
    name = request.path_params["id"]
    if name == "atlantis":
        return JSONResponse({"error": f"{SECRET}: no such city"}, 404)
    return JSONResponse({"name": name, "tags": request.query_params.getlist("tag")})


async def _other(request: Request) -> Response:
    match request.url.path.rpartition("/")[2]:
        case "cities":
            return JSONResponse({"id": 7, **await request.json()}, 201)
        case "picture":
            return Response(PIXEL, media_type="image/png")
        case "away":
            elsewhere = f"http://localhost:{request.url.port}/v1/cities/rome"
            return RedirectResponse(request.url.query or elsewhere)
        case "cookie":
            return PlainTextResponse(str(request.cookies), headers={"Set-Cookie": "who=ada"})
        case "much":
            return PlainTextResponse("x" * 5_000_000)
        case _:
            await request.is_disconnected()
            async for _ in request.stream():
                pass
            await request.receive()
            return PlainTextResponse("too late")


@contextmanager
def http_api() -> Generator[HttpApi]:
    """Such an API on a free port, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    api = HttpApi(f"http://127.0.0.1:{listener.getsockname()[1]}")

    async def keep(request: Request) -> Response:
        target = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
        body = await request.body() if request.method == "POST" else b""
        api.asked.append(Asked(request.method, target, dict(request.headers), body))
        return await (_city if "id" in request.path_params else _other)(request)

    app = Starlette(
        routes=[
            Route("/v1/cities/{id:path}", keep),
            Route("/{rest:path}", keep, methods=["GET", "POST"]),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield api
    finally:
        server.should_exit = True
        thread.join(BOUND)
