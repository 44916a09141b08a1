"""An agent backend that does what a script says: all routes of the run protocol, over real HTTP.

It runs in a thread with its own event loop, so that both sync and async tests can use it:

    with ScriptedBackend() as backend:
        backend.script = script(text("Hi"), succeed())   # of every run from now on
        backend.queue(refuse(503), echo)                 # only of the next two
        ...  # talk to backend.url
        backend.wait_until(lambda: backend.open_streams == 0)

It takes whatever is sent, until a test says which generation of the run protocol it `speaks`: then it is as
strict as a real one of that generation (`tests/support/fakes/strict.py`).
"""

import asyncio
import json
import socket
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from tests.support.fakes.reader import EventStream
from tests.support.fakes.run import Logged, Run, cursor_of
from tests.support.fakes.script import Script, ScriptSource, cancelled, echo
from tests.support.fakes.session import problem_of
from tests.support.fakes.strict import Generation, complaints, failure, openapi
from tests.support.ports import hold_port

_NO_RUN: Final = {"detail": "run not found"}


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    body: Any
    headers: dict[str, str]
    run_id: str | None = None
    raw: bytes = b""
    """The body, byte by byte."""


class ScriptedBackend:
    """`token` is the bearer it wants, if any; `prefix` the path it lives under. Restartable."""

    def __init__(self, token: str | None = None, prefix: str = "") -> None:
        self.script: ScriptSource = echo
        self.runs: dict[str, Run] = {}
        self.requests: list[Received] = []
        """Every POST /runs, refused ones too."""
        self.cancels: list[Received] = []
        self.streams: list[tuple[str, str | None]] = []
        """Run id and cursor of every event stream that was asked for."""
        self.open_streams = 0
        self.broken_streams = 0
        """How many of the next event streams are refused with `broken_status` and a page of HTML."""
        self.broken_status = 500
        self.speaks: Generation | None = None
        """Another value is an upgrade, or its roll-back."""
        self.flips = False
        """Whether each POST /runs is answered in another generation than the one before: two processes."""
        self.vendor = "dify."
        """Prefix of the layer types it knows."""
        self.documented = True
        """Whether it says in `/openapi.json` what it speaks."""
        self.document: int | Literal["cut", "hang", "garbage"] = 200
        """The response to a request for it."""
        self.documents = 0
        """How often that was asked for."""
        self._token = token
        self._prefix = prefix
        self._scripts: deque[ScriptSource] = deque()
        self._held = hold_port()
        """No other program gets the port while it is stopped."""
        self._made = 0
        """How many runs there were, forgotten ones too: no other run gets the id of one."""
        self._changed = threading.Condition()
        self._running: tuple[threading.Thread, asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._held.getsockname()[1]}{self._prefix}"

    @property
    def posts(self) -> int:
        """How many POST /runs arrived."""
        return len(self.requests)

    def queue(self, *scripts: ScriptSource) -> None:
        """Scripts of the next runs, one each, before `script` is used again."""
        self._scripts.extend(scripts)

    def forget(self, run_id: str) -> None:
        """From now on the run is unknown."""
        del self.runs[run_id]

    def trim(self, run_id: str, keep: int) -> None:
        """Keep only the newest few events for readers that connect from now on."""
        run = self.runs[run_id]
        run.trim(keep, len(run.log))

    def wait_until(self, predicate: Callable[[], bool], seconds: float = 20.0) -> None:
        """Until something that requests, cancels or event streams change is true."""
        with self._changed:
            if not self._changed.wait_for(predicate, seconds):
                raise TimeoutError(f"not within {seconds} s")

    async def until(self, predicate: Callable[[], bool], seconds: float = 20.0) -> None:
        """`wait_until` for async tests."""
        await asyncio.to_thread(self.wait_until, predicate, seconds)

    def start(self) -> None:
        """Listen; after a stop on the same port, with the same runs (their scripts do not continue)."""
        listener = socket.create_server(self._held.getsockname(), backlog=2048)
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener, ready)), daemon=True)
        thread.start()
        if not ready.wait(10):
            raise TimeoutError("the scripted backend did not start")

    def stop(self) -> None:
        """Break all connections and listen no more."""
        if self._running is not None:
            thread, loop, stopping = self._running
            loop.call_soon_threadsafe(stopping.set)
            thread.join(10)
            self._running = None

    def close(self) -> None:
        """Stop for good, and let the port go."""
        self.stop()
        self._held.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        stopping = asyncio.Event()
        self._running = (threading.current_thread(), asyncio.get_running_loop(), stopping)
        config = uvicorn.Config(self._app(), log_config=None, access_log=False, lifespan="off", backlog=2048)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ready.set()
        await stopping.wait()
        # uvicorn's own end is polite and slow.
        serving.cancel()
        await asyncio.wait({serving})
        for asyncio_server in server.servers:
            asyncio_server.close()
        listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.close()
        for run in self.runs.values():
            run.halt()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=5)

    def _app(self) -> Callable[[Scope, Receive, Send], Any]:
        routes = [
            Route("/openapi.json", self._openapi),
            Route("/runs", self._create, methods=["POST"]),
            Route("/runs/{run_id}/events", self._events),
            Route("/runs/{run_id}/events/sse", self._stream),
            Route("/runs/{run_id}/cancel", self._cancel, methods=["POST"]),
        ]
        inner = Starlette(routes=[Mount(self._prefix, routes=routes)] if self._prefix else routes)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # uvicorn cannot drop a connection without a response, but its transport can.
            scope["transport"] = cast("Any", send).__self__.transport
            wanted = f"Bearer {self._token}".encode()
            if self._token and dict(scope["headers"]).get(b"authorization") != wanted:
                await JSONResponse({"detail": "unauthorized"}, 401)(scope, receive, send)
                return
            await inner(scope, receive, send)

        return app

    def notify(self) -> None:
        """Something that a test may wait for has changed."""
        with self._changed:
            self._changed.notify_all()

    async def _openapi(self, request: Request) -> Response:
        self.documents += 1
        self.notify()
        match self.document:
            case "cut":
                return await _cut(request)
            case "hang":
                return await _hang(request)
            case "garbage":
                return HTMLResponse("<html>Welcome to the proxy</html>")
            case status if status != 200:
                return _refusal(status, None)
            case _ if self.speaks and self.documented:
                return JSONResponse(openapi(self.speaks))
            case _:
                return JSONResponse({"detail": "Not Found"}, 404)

    async def _create(self, request: Request) -> Response:
        raw = await request.body()
        try:
            body = json.loads(raw)
            layers = body["composition"]["layers"]
        except (ValueError, TypeError, KeyError):
            return _unprocessable(raw.decode(errors="replace"))
        self.requests.append(Received(body, dict(request.headers), raw=raw))
        speaks = self.speaks
        if speaks and self.flips:
            self.speaks = 2 if speaks == 1 else 1
        if speaks and (detail := complaints(body, speaks)):
            self.notify()
            return JSONResponse({"detail": detail}, 422)
        problem = failure(body, speaks, self.vendor) if speaks else problem_of(body)
        return await self._run(request, body, layers, problem)

    async def _run(
        self, request: Request, body: dict[str, Any], layers: Any, problem: str | None
    ) -> Response:
        source = self._scripts.popleft() if self._scripts else self.script
        plan = source if isinstance(source, Script) else source(body)
        self.notify()
        if isinstance(plan.create, int) and plan.create >= 300:
            return _refusal(plan.create, layers)
        run = self._new_run(body, plan, problem)
        await asyncio.sleep(0)  # the script has its first turn: all up to its first gate is in the log
        match plan.create:
            case "cut":
                return await _cut(request)
            case "hang":
                return await _hang(request)
            case "garbage":
                return HTMLResponse("<html>Welcome to the proxy</html>", 202)
            case status:
                return JSONResponse({"run_id": run.id, "status": "running"}, status)

    def _new_run(self, body: dict[str, Any], plan: Script, problem: str | None) -> Run:
        self._made = number = self._made + 1
        run = Run(number, str(uuid.uuid5(uuid.NAMESPACE_URL, f"run/{number}")), body, plan, problem)
        self.runs[run.id] = run
        run.start()
        return run

    async def _events(self, request: Request) -> Response:
        run = self.runs.get(request.path_params["run_id"])
        if run is None:
            return JSONResponse(_NO_RUN, 404)
        try:
            after = request.query_params.get("after")
            start = run.entry_after(cursor_of(after) if after else None)
        except ValueError:
            return PlainTextResponse("Internal Server Error", 500)
        limit = int(request.query_params.get("limit", "100"))
        events = [entry.event for entry in run.log[start:] if isinstance(entry, Logged)][:limit]
        cursor = events[-1]["id"] if events else after
        return JSONResponse({"run_id": run.id, "events": events, "next_cursor": cursor})

    async def _stream(self, request: Request) -> Response:
        run = self.runs.get(request.path_params["run_id"])
        after = request.query_params.get("after") or request.headers.get("last-event-id")
        self.streams.append((request.path_params["run_id"], after))
        self.notify()
        if self.broken_streams:
            self.broken_streams -= 1
            return HTMLResponse("<html>Welcome to the proxy</html>", self.broken_status)
        if run is None:
            return JSONResponse(_NO_RUN, 404)
        return EventStream(self, run, after)

    async def _cancel(self, request: Request) -> Response:
        run_id = request.path_params["run_id"]
        body = await request.body()
        if not body:
            return _unprocessable(None)
        self.cancels.append(Received(json.loads(body), dict(request.headers), run_id))
        self.notify()
        run = self.runs.get(run_id)
        if run is None:
            return JSONResponse(_NO_RUN, 404)
        match run.script.cancel:
            case "hang":
                return await _hang(request)
            case "ignore":
                pass
            case status if status != 200:
                return _refusal(status, None)
            case _ if run.status == "running":
                given = self.cancels[-1].body
                run.end(cancelled(given.get("reason"), given.get("message")))
            case _ if run.status != "cancelled":
                return JSONResponse({"detail": "run is already finished"}, 409)
            case _:
                pass
        return JSONResponse({"run_id": run_id, "status": "cancelled"})


def _refusal(status: int, secret: Any) -> Response:
    """As real backends do it: a 422 shows what was sent, a 500 is text."""
    if status == 422:
        return _unprocessable(secret)
    if status >= 500 and status != 503:
        return PlainTextResponse("Internal Server Error", status)
    return JSONResponse({"detail": f"refused with {status}"}, status)


def _unprocessable(shown: Any) -> Response:
    return JSONResponse({"detail": [{"type": "made_up", "loc": ["body"], "input": shown}]}, 422)


async def _hang(request: Request) -> Response:
    """No answer, until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


async def _cut(request: Request) -> Response:
    """The connection ends without an answer."""
    request.scope["transport"].close()
    return await _hang(request)
