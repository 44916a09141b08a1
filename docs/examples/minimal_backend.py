"""A complete agent backend: the run protocol (schema 1) in one file, with the standard library alone.

    python docs/examples/minimal_backend.py --port 9000
    AGENT_GATEWAY_BACKEND_URL=http://127.0.0.1:9000 ./dev/start-api

`answer` is the agent: put yours in its place. docs/design/run-protocol.md explains the rest.
Runs are kept in memory. A real backend keeps them elsewhere, so that they outlive its process.
"""

import argparse
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
TOKEN: Final = os.environ.get("BACKEND_TOKEN", "")
KEEPALIVE_SECONDS: Final = 15.0
SCHEMA_1: Final = {"RunComposition": {"properties": {"schema_version": {"const": 1}}}}


def answer(query: str, history: list[Json]) -> Iterator[str]:
    """The agent: its answer, piece by piece. An exception fails the run."""
    if query.lower().startswith("count to "):
        for number in range(1, int(query[len("count to ") :]) + 1):
            yield f"{number} "
            time.sleep(0.05)
        return
    yield from ("You said: ", query)
    if history:
        yield f" (before that: {history[-2]['content']})"


class Run:
    """One run: a log of events that only grows, and the thread that writes it."""

    def __init__(self, request: Json) -> None:
        self.id, self.status, self.log, self.grew = str(uuid.uuid4()), "running", list[bytes](), Condition()
        self._layers: list[Json] = request["composition"]["layers"]
        if not all({"name", "type"} <= layer.keys() for layer in self._layers):
            raise ValueError("every layer of schema 1 has a name and a type")
        said = [layer["config"]["user"] for layer in self._layers if "user" in (layer.get("config") or {})]
        self._query = "\n".join("\n".join(one) if isinstance(one, list) else one for one in said)
        held = {one["name"]: one for one in (request.get("session_snapshot") or {"layers": []})["layers"]}
        state = held.get("history", {}).get("runtime_state", {})
        self._history, self._said = state.get("messages", []), ""
        self.append("run_started", {})
        Thread(target=self._work, daemon=True).start()

    def append(self, kind: str, data: Json, status: str = "running", **more: Any) -> None:
        """Add an event to the log. Nothing follows a terminal event."""
        with self.grew:
            if self.status == "running":
                number, now = str(len(self.log) + 1), datetime.now(UTC).isoformat()
                event = {"id": number, "run_id": self.id, "created_at": now, "type": kind, "data": data}
                line = json.dumps(event | more)
                self.log.append(f"id: {number}\nevent: {kind}\ndata: {line}\n\n".encode())
                self.status = status
                self.grew.notify_all()

    def cancel(self, reason: str | None, message: str | None) -> None:
        """End the run now. The snapshot keeps what was said, so that the next turn knows it."""
        with self.grew:
            data = {"reason": reason, "message": message, "session_snapshot": self._snapshot()}
            self.append("run_cancelled", data, "cancelled")

    def read(self, after: int) -> Iterator[bytes]:
        """The frames behind event number `after` as they come, up to the terminal one."""
        while True:
            with self.grew:
                if len(self.log) <= after and self.status == "running":
                    self.grew.wait(KEEPALIVE_SECONDS)
                frames, over = self.log[after:], self.status != "running"
            yield b"".join(frames) or b": keepalive\n\n"
            after += len(frames)
            if over:
                return

    def _work(self) -> None:
        if not any(layer["type"].endswith("llm") for layer in self._layers):
            self._fail("Missing required 'llm' layer.")  # the gateway then knows: no session to clean up
            return
        try:
            for piece in answer(self._query, self._history):
                self._say(piece)
                if self.status != "running":
                    return
        except Exception as error:  # whatever the agent did, its run ends
            self._fail(str(error))
        data = {"output": self._said, "session_snapshot": self._snapshot()}
        self.append("run_succeeded", data, "succeeded")

    def _fail(self, error: str) -> None:
        self.append("run_failed", {"error": error, "reason": None}, "failed")

    def _say(self, piece: str) -> None:
        delta = {"part_delta_kind": "text", "content_delta": piece}
        with self.grew:
            self._said += piece
            data = {"event_kind": "part_delta", "index": 0, "delta": delta}
            self.append("pydantic_ai_event", data, agent_message_delta=piece)

    def _snapshot(self) -> Json:
        turn = [{"role": "user", "content": self._query}, {"role": "agent", "content": self._said}]
        layers: list[Json] = []
        for layer in self._layers:
            state = {"messages": [*self._history, *turn]} if layer["name"] == "history" else {}
            layers.append({"name": layer["name"], "lifecycle_state": "suspended", "runtime_state": state})
        return {"schema_version": 1, "layers": layers}


RUNS: Final[dict[str, Run]] = {}


class Handler(BaseHTTPRequestHandler):
    """The routes, over HTTP/1.0: a stream ends with its connection."""

    def do_GET(self) -> None:
        """Answer a GET."""
        self._route("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._route("POST")

    def _route(self, method: str) -> None:
        url = urlsplit(self.path)
        try:
            match method, url.path.strip("/").split("/"):
                case "GET", ["openapi.json"]:
                    self._reply(200, {"components": {"schemas": SCHEMA_1}})
                case _ if TOKEN and self.headers["Authorization"] != f"Bearer {TOKEN}":
                    self._reply(401, {"detail": "invalid bearer token"})
                case "POST", ["runs"]:
                    run = Run(self._body())
                    RUNS[run.id] = run
                    self._reply(202, {"run_id": run.id, "status": "running"})
                case _, ["runs", run_id, *_] if run_id not in RUNS:
                    self._reply(404, {"detail": "run not found"})
                case "GET", ["runs", run_id]:
                    self._reply(200, {"run_id": run_id, "status": RUNS[run_id].status})
                case "GET", ["runs", run_id, "events", "sse"]:
                    after = parse_qs(url.query).get("after", [self.headers["Last-Event-ID"] or "0"])
                    self._stream(RUNS[run_id].read(int(after[0])))
                case "POST", ["runs", run_id, "cancel"]:
                    self._cancel(RUNS[run_id], self._body())
                case _:
                    self._reply(404, {"detail": "not found"})
        except (ValueError, KeyError, TypeError, AttributeError):
            self._reply(422, {"detail": [{"type": "invalid", "loc": ["body"], "msg": "wrong shape"}]})

    def _cancel(self, run: Run, wish: Json) -> None:
        run.cancel(wish.get("reason"), wish.get("message"))
        cancelled = run.status == "cancelled"
        reply = {"run_id": run.id, "status": run.status} if cancelled else {"detail": "run already finished"}
        self._reply(200 if cancelled else 409, reply)

    def _body(self) -> Json:
        body: Json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _reply(self, status: int, body: Json) -> None:
        self._head(status, "application/json")
        self.wfile.write(json.dumps(body).encode())

    def _stream(self, frames: Iterator[bytes]) -> None:
        self._head(200, "text/event-stream")
        with suppress(OSError):  # the reader left; the run continues
            for frame in frames:
                self.wfile.write(frame)

    def _head(self, status: int, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.end_headers()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal agent backend.")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one")
    with ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
