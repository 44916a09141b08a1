"""The run protocol over HTTP, so that any gateway can drive and replay the runs of this process."""

import asyncio
import hmac
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_gateway import tracing
from agent_gateway.backend.embedded.backend import EmbeddedBackend
from agent_gateway.backend.embedded.load_agent import Agents
from agent_gateway.backend.embedded.runs import Cancellation, Stopping
from agent_gateway.backend.embedded.runs.log import RunLog
from agent_gateway.backend.embedded.runs.requests import read_request
from agent_gateway.backend.embedded.runs.run import FROM_START, LoggedEvent, Run, parse_cursor
from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.errors import BackendError, BackendUnreachable, RunLost, StoreError, StoreUnavailable
from agent_gateway.server import requests
from agent_gateway.server.config import server_config

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""A request carries a whole session snapshot."""
MAX_EVENTS: Final = 500
CUT_SECONDS: Final = 5
"""How long open streams may take to end after SIGTERM."""

SCHEMA_VERSION: Final = 1
"""Of the compositions that it accepts: the generation of the run protocol that it speaks."""

_SSE_HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


class CancelRequest(msgspec.Struct):
    """Body of POST /runs/{id}/cancel."""

    reason: str | None = None
    message: str | None = None


_cancel: Final = msgspec.json.Decoder(CancelRequest)


def create_backend_app(
    backend: EmbeddedBackend,
    token: str | None,
    *,
    keepalive_seconds: float = 15.0,
    storage: AbstractAsyncContextManager[object] | None = None,
) -> Starlette:
    """The ASGI app of the run protocol. With a token, every route of a run requires it as a bearer token.

    A silent stream gets a comment after each `keepalive_seconds`. The lifespan closes the backend; `storage`,
    where the runs are logged, is entered before and left after. A server must end the runs itself before it
    waits for open streams, because those wait for their runs; `BackendServer` does.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with tracing.running(), storage or nullcontext(), backend.runs.tidying():
            yield
            await backend.aclose()

    routes = _Routes(backend, keepalive_seconds)
    guard = _guard(token)
    app = Starlette(
        routes=[
            Route("/openapi.json", _openapi, methods=["GET"]),
            Route("/runs", guard(routes.create), methods=["POST"]),
            Route("/runs/{run_id}", guard(routes.status), methods=["GET"]),
            Route("/runs/{run_id}/events", guard(routes.events), methods=["GET"]),
            Route("/runs/{run_id}/events/sse", guard(routes.stream), methods=["GET"]),
            Route("/runs/{run_id}/cancel", guard(routes.cancel), methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _refuse,
            ClientDisconnect: _left,
            BackendError: _away,
            StoreError: _away,
        },
        lifespan=lifespan,
        max_body_size=MAX_BODY_BYTES,
    )
    requests.install(app)
    return app


class BackendServer(uvicorn.Server):
    """A uvicorn that ends all runs first when it stops, so that their streams end with them."""

    def __init__(self, config: uvicorn.Config, backend: EmbeddedBackend) -> None:
        super().__init__(config)
        self._backend = backend

    # `typing.override` is newer than the oldest Python supported here.
    async def shutdown(  # pyrefly: ignore[missing-override-decorator]
        self, sockets: list[socket.socket] | None = None
    ) -> None:
        """Called in the event loop after SIGTERM or SIGINT."""
        await self._backend.runs.aclose()
        await super().shutdown(sockets)


def serve_backend(
    host: str,
    port: int,
    model: str,
    token: str | None,
    agents: Agents | None = None,
    *,
    log: RunLog,
    storage: AbstractAsyncContextManager[object],
) -> None:
    """Serve the embedded backend over HTTP until a signal ends it; raises ConfigError.

    With `agents`, those are served in place of the built-in ones. Runs are in `log`, which works while
    `storage` is entered.
    """
    # A composition that names a program or a function runs code: only those who know the token may.
    backend = EmbeddedBackend(model, log, log_ends=True, runs_code=bool(token), agents=agents)
    app = create_backend_app(backend, token, storage=storage)
    config = server_config(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=CUT_SECONDS,
    )
    BackendServer(config, backend).run()


class _Routes:
    """The five routes over one run store."""

    def __init__(self, backend: EmbeddedBackend, keepalive_seconds: float) -> None:
        self._runs = backend.runs
        self._keepalive_seconds = keepalive_seconds

    async def create(self, request: Request) -> Response:
        wish = _decode(read_request, await request.body())
        if wish.composition.schema_version != SCHEMA_VERSION:
            raise _Malformed(f"must be {SCHEMA_VERSION}", "composition", "schema_version")
        try:
            run = await self._runs.create(wish)
        except Stopping:
            raise HTTPException(503, "the backend is stopping") from None
        return JSONResponse({"run_id": run.id, "status": run.status}, 202)

    async def status(self, request: Request) -> Response:
        async with self._run(request) as run:
            return JSONResponse(
                {
                    "run_id": run.id,
                    "status": run.status,
                    "created_at": run.created_at,
                    "updated_at": run.updated_at,
                    "error": run.error,
                }
            )

    async def events(self, request: Request) -> Response:
        after = request.query_params.get("after")
        limit = request.query_params.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= MAX_EVENTS:
            raise HTTPException(422, f"limit must be a number from 1 to {MAX_EVENTS}")
        async with self._run(request) as run:
            events = run.after(_cursor(after))[: int(limit)]
        page = {
            "run_id": run.id,
            "events": [msgspec.Raw(event.body) for event in events],
            "next_cursor": events[-1].id if events else after,
        }
        return Response(msgspec.json.encode(page), media_type="application/json")

    async def stream(self, request: Request) -> Response:
        after = request.query_params.get("after") or request.headers.get("last-event-id")
        number = _cursor(after)
        async with self._run(request):
            # Once more by the response itself, which may never begin.
            reading = self._runs.opened(_id_in(request))
            frames = _frames(reading, number, self._keepalive_seconds)
            return StreamingResponse(frames, media_type="text/event-stream", headers=_SSE_HEADERS)

    async def cancel(self, request: Request) -> Response:
        wish = _decode(_cancel.decode, await request.body())
        try:
            run = await self._runs.cancel(_id_in(request), Cancellation(wish.reason, wish.message))
        except RunLost:
            raise HTTPException(404, "run not found") from None
        if run.status == "running":
            return JSONResponse({"run_id": run.id, "status": run.status}, 202)
        if run.status != "cancelled":
            raise HTTPException(409, f"run already finished with status '{run.status}'")
        return JSONResponse({"run_id": run.id, "status": run.status})

    @asynccontextmanager
    async def _run(self, request: Request) -> AsyncGenerator[Run]:
        try:
            async with self._runs.opened(_id_in(request)) as run:
                yield run
        except RunLost:
            raise HTTPException(404, "run not found") from None


def _id_in(request: Request) -> str:
    run_id = canonical_uuid(request.path_params["run_id"])
    if run_id is None:
        raise HTTPException(404, "run not found")
    return run_id


async def _openapi(_: Request) -> Response:
    """The part of an OpenAPI document that a gateway reads: the generation, and that files are taken."""
    version = {"type": "integer", "const": SCHEMA_VERSION}
    composition = {"type": "object", "properties": {"schema_version": version}}
    return JSONResponse(
        {
            "openapi": "3.1.0",
            "info": {"title": "Agent backend", "version": "1"},
            "x-agent-gateway-files": True,
            "paths": {},
            "components": {"schemas": {"RunComposition": composition}},
        }
    )


async def _frames(
    reading: AbstractAsyncContextManager[Run], number: int, keepalive_seconds: float
) -> AsyncGenerator[bytes]:
    """The SSE frames of a run after a number, all that are there in one piece; ends with the run.

    It ends before, too, when the run can no longer be read here: the reader comes back, here or elsewhere.
    """
    try:
        async with reading as run:
            while True:
                try:
                    async with asyncio.timeout(keepalive_seconds):
                        batch = await run.next_batch(number)
                except TimeoutError:
                    yield b": keepalive\n\n"
                    continue
                if not batch:
                    return
                number = batch[-1].number
                yield b"".join([_frame(event) for event in batch])
    except (BackendError, StoreError) as error:
        logger.debug("a stream is cut: %s", error)


def _frame(event: LoggedEvent) -> bytes:
    return f"id: {event.id}\nevent: {event.type}\ndata: ".encode() + event.body + b"\n\n"


def _cursor(text: str | None) -> int:
    if not text:
        return FROM_START
    try:
        return parse_cursor(text)
    except ValueError:
        raise HTTPException(422, "the cursor is not one of this run's event ids") from None


def _decode(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # The message names types and a path, and repeats nothing of the body, which holds model credentials.
        raise _Malformed(str(error)) from None


class _Malformed(HTTPException):
    """A body with one mistake; `place` is the path to it."""

    def __init__(self, message: str, *place: str) -> None:
        super().__init__(422, message)
        self.loc = ["body", *place]


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail: Any = error.detail
    if isinstance(error, _Malformed):
        detail = [{"type": "invalid", "loc": error.loc, "msg": error.detail}]
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _left(_: Request, error: Exception) -> Response:
    """The client left in the middle of its body: nobody reads this."""
    return Response(status_code=400)


async def _away(_: Request, error: Exception) -> Response:
    if not isinstance(error, StoreUnavailable | BackendUnreachable):
        logger.error("the run log refused a request: %s", error)
        return JSONResponse({"detail": "the run log cannot take this"}, 500)
    return JSONResponse({"detail": "the run log cannot be used"}, 503, {"Retry-After": "1"})


def _guard(token: str | None) -> Callable[[Endpoint], Endpoint]:
    """Wraps endpoints so that they require the token, if there is one."""

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def check(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if token and not (
                scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())
            ):
                raise HTTPException(401, "unauthorized")
            return await endpoint(request)

        return check

    return guarded
