"""The run protocol over HTTP: the five routes of the backend server, on a real uvicorn."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.embedded import EmbeddedBackend
from agent_gateway.backend.embedded.server import BackendServer, create_backend_app
from agent_gateway.backend.protocol import Composition, CreateRunRequest, Layer
from agent_gateway.server.config import server_config
from tests.support.gateway_process import START_SECONDS
from tests.support.paths import RECORDED
from tests.support.run_log import open_log
from tests.support.run_reader import events_of

pytestmark = pytest.mark.anyio

LIMIT = 30.0  # seconds until a test that waits for nothing gives up
TOKEN = "backend-token"
SECRET = "sk-in-the-body"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def serving(
    token: str | None = None, pace: float = 0, keepalive_seconds: float = 15.0
) -> AsyncGenerator[tuple[httpx.AsyncClient, BackendServer]]:
    """A server on a free port and a client of it; stopped as a signal would stop it."""
    async with open_log() as log:
        backend = EmbeddedBackend("", log, pace=pace)
        app = create_backend_app(backend, token, keepalive_seconds=keepalive_seconds)
        listener = socket.create_server(("127.0.0.1", 0))
        config = server_config(app)
        server = BackendServer(config, backend)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        task = asyncio.create_task(server.serve([listener]))
        try:
            async with asyncio.timeout(LIMIT), httpx.AsyncClient(base_url=url, timeout=LIMIT) as client:
                yield client, server
        finally:
            server.should_exit = True
            async with asyncio.timeout(LIMIT):
                await task


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    async with serving() as (client, _):
        yield client


def body(user: str, **more: Any) -> dict[str, Any]:
    layers: list[dict[str, Any]] = [
        {
            "name": "soul",
            "type": "plain.prompt",
            "deps": {},
            "metadata": {},
            "config": {"prefix": "Be kind."},
        },
        {"name": "user", "type": "plain.prompt", "config": {"user": user}},
        {"name": "execution_context", "type": "vendor.execution_context", "config": {"tenant_id": "t"}},
        {"name": "history", "type": "pydantic_ai.history", "config": None},
        {"name": "llm", "type": "vendor.plugin.llm", "config": {"api_key": SECRET}},
    ]
    return {"composition": {"schema_version": 1, "layers": layers}, "session_snapshot": None} | more


async def create(client: httpx.AsyncClient, user: str) -> str:
    answer = await client.post("/runs", json=body(user))
    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    return str(answer.json()["run_id"])


async def frames(response: httpx.Response) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    buffer = b""
    async for piece in response.aiter_raw():
        buffer += piece
        *whole, buffer = buffer.split(b"\n\n")
        for frame in whole:
            first, second, third = frame.split(b"\n")
            yield (
                first.removeprefix(b"id: ").decode(),
                second.removeprefix(b"event: ").decode(),
                json.loads(third.removeprefix(b"data: ")),
            )
    assert buffer == b""


async def follow(
    client: httpx.AsyncClient, run_id: str, after: str = "", last_event_id: str = ""
) -> list[tuple[str, str, dict[str, Any]]]:
    params = {"after": after} if after else {}
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    async with client.stream("GET", f"/runs/{run_id}/events/sse", params=params, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return [frame async for frame in frames(response)]


async def test_the_stream_of_a_run_ends_with_the_run(client: httpx.AsyncClient) -> None:
    run_id = await create(client, "what is 12*7? \u2028")
    told = await follow(client, run_id)
    assert [kind for _, kind, _ in told][0 :: len(told) - 1] == ["run_started", "run_succeeded"]
    assert all((event["id"], event["type"], event["run_id"]) == (i, kind, run_id) for i, kind, event in told)
    assert told[-1][2]["data"]["output"].startswith("12*7 = 84.")
    assert await follow(client, run_id) == told
    status = (await client.get(f"/runs/{run_id}")).json()
    assert status.keys() == {"run_id", "status", "created_at", "updated_at", "error"}
    assert (status["status"], status["error"]) == ("succeeded", None)
    assert status["updated_at"] == told[-1][2]["created_at"]


async def test_a_cursor_is_exclusive_and_after_overrides_last_event_id(client: httpx.AsyncClient) -> None:
    run_id = await create(client, "hi")
    told = await follow(client, run_id)
    ids = [event_id for event_id, _, _ in told]
    assert await follow(client, run_id, after=ids[4]) == told[5:]
    assert await follow(client, run_id, last_event_id=ids[4]) == told[5:]
    assert await follow(client, run_id, after=ids[6], last_event_id=ids[4]) == told[7:]
    assert await follow(client, run_id, after=ids[-1]) == []
    assert (await client.get(f"/runs/{run_id}/events/sse?after=garbage")).status_code == 422


async def test_events_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    run_id = await create(client, "hi")
    told = await follow(client, run_id)
    url, cursor = f"/runs/{run_id}/events", ""
    paged: list[dict[str, Any]] = []
    while True:
        params: dict[str, str | int] = {"limit": 7} | ({"after": cursor} if cursor else {})
        page = (await client.get(url, params=params)).json()
        assert page["run_id"] == run_id
        if not page["events"]:
            break
        paged += page["events"]
        cursor = page["next_cursor"]
    assert page["next_cursor"] == cursor
    assert paged == [event for _, _, event in told]
    for wrong in ("limit=0", "limit=501", "limit=x", "after=x"):
        assert (await client.get(f"{url}?{wrong}")).status_code == 422


async def test_a_run_is_cancelled_once_and_only_with_a_valid_body() -> None:
    async with serving(pace=0.001) as (client, _):
        run_id = await create(client, "count to 10000")
        async with client.stream("GET", f"/runs/{run_id}/events/sse") as response:
            stream = frames(response)
            async for _, _, event in stream:
                if event.get("agent_message_delta"):
                    break
            url = f"/runs/{run_id}/cancel"
            assert (await client.post(url)).status_code == 422
            for _ in range(2):
                cancelled = await client.post(url, json={"reason": "user", "message": "enough"})
                assert cancelled.status_code == 200
                assert cancelled.json() == {"run_id": run_id, "status": "cancelled"}
            rest = [event async for _, _, event in stream]
        assert rest[-1]["type"] == "run_cancelled"
        assert (rest[-1]["data"]["reason"], rest[-1]["data"]["message"]) == ("user", "enough")
        assert rest[-1]["data"]["session_snapshot"]["layers"][3]["runtime_state"]["messages"]

        done = await create(client, "hi")
        await follow(client, done)
        late = await client.post(f"/runs/{done}/cancel", json={})
        assert late.status_code == 409
        assert late.json() == {"detail": "run already finished with status 'succeeded'"}


async def test_an_unknown_run_answers_404(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/runs/nope"),
        await client.get("/runs/nope/events"),
        await client.get("/runs/nope/events/sse"),
        await client.post("/runs/nope/cancel", json={}),
    ):
        assert (answer.status_code, answer.json()) == (404, {"detail": "run not found"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"metadata":{"key":"' + SECRET.encode() + b'"}}',
        b'{"composition":{"schema_version":"' + SECRET.encode() + b'","layers":[]}}',
        b'{"composition":{"schema_version":1,"layers":[{"name":"\\ud83d"}]}}',
    ],
)
async def test_a_malformed_request_answers_422_without_its_content(
    client: httpx.AsyncClient, content: bytes
) -> None:
    answer = await client.post("/runs", content=content)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]
    assert SECRET not in answer.text


async def test_the_server_states_its_generation_and_refuses_the_other(client: httpx.AsyncClient) -> None:
    """A gateway whose backend is replaced by this one finds out before a run is made."""
    document = (await client.get("/openapi.json")).json()
    version = document["components"]["schemas"]["RunComposition"]["properties"]["schema_version"]
    assert version["const"] == 1
    wish = body("hi")
    wish["composition"]["schema_version"] = 2
    answer = await client.post("/runs", json=wish)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "composition", "schema_version"]


async def test_a_conversation_of_a_schema_2_backend_is_continued(client: httpx.AsyncClient) -> None:
    end = (RECORDED / "schema2/multi_turn2.sse").read_bytes().rpartition(b"data: ")[2]
    data = msgspec.json.decode(end, type=dict[str, msgspec.Raw])["data"]
    snapshot = msgspec.json.decode(data, type=dict[str, msgspec.Raw])["session_snapshot"]
    recorded = json.loads((RECORDED / "schema2/multi_turn2.request.json").read_text("utf-8"))
    wish = CreateRunRequest(msgspec.convert(recorded["composition"], type=Composition), snapshot)
    wish.composition.layers[1].config = {"text": "What did I say before?"}
    wish.composition.layers[4] = Layer("llm")  # no model: the demo agent
    here = HTTPBackend(str(client.base_url))
    run_id = await here.create_run(wish)
    *_, last = await events_of(here, run_id)
    await here.aclose()
    assert last.type == "run_succeeded", last
    assert "What is my name?" in msgspec.json.decode(last.data)["output"]


async def test_an_invalid_composition_fails_the_run_not_the_request(client: httpx.AsyncClient) -> None:
    wish = body("hi", session_snapshot={"layers": []}, unknown_field=1)
    run_id = (await client.post("/runs", json=wish)).json()["run_id"]
    told = await follow(client, run_id)
    assert [kind for _, kind, _ in told] == ["run_started", "run_failed"]
    assert (await client.get(f"/runs/{run_id}")).json()["error"] == told[-1][2]["data"]["error"]
    assert SECRET not in json.dumps(told)


async def test_a_session_is_continued_over_http(client: httpx.AsyncClient) -> None:
    run_id = await create(client, "My name is Ada.")
    snapshot = (await follow(client, run_id))[-1][2]["data"]["session_snapshot"]
    wish = body("What is my name?", session_snapshot=snapshot)
    run_id = (await client.post("/runs", json=wish)).json()["run_id"]
    assert "Your name is Ada" in (await follow(client, run_id))[-1][2]["data"]["output"]


async def test_every_route_refuses_a_request_without_the_token() -> None:
    async with serving(token=TOKEN) as (client, _):
        for headers in (
            {"x-other": TOKEN},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {TOKEN}"},
        ):
            for method, path in (
                ("POST", "/runs"),
                ("GET", "/runs/x"),
                ("GET", "/runs/x/events"),
                ("GET", "/runs/x/events/sse"),
                ("POST", "/runs/x/cancel"),
            ):
                assert (await client.request(method, path, headers=headers)).status_code == 401
        good = {"authorization": f"bearer {TOKEN}"}
        assert (await client.post("/runs", json=body("hi"), headers=good)).status_code == 202


async def test_a_silent_run_gets_keepalives() -> None:
    async with serving(pace=LIMIT, keepalive_seconds=0.05) as (client, _):
        run_id = await create(client, "hi")
        async with client.stream("GET", f"/runs/{run_id}/events/sse") as response:
            told = b""
            async for piece in response.aiter_raw():
                told += piece
                if told.count(b": keepalive\n\n") >= 3:
                    break
    assert told.endswith(b": keepalive\n\n")


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as (client, _):
        url = httpx.URL(str(client.base_url))
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"POST /runs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        await create(client, "hi")  # it has read that by now
        writer.close()
        await writer.wait_closed()
        await follow(client, await create(client, "hi"))
    assert "Exception in ASGI application" not in caplog.text


@pytest.mark.slow
async def test_a_hundred_readers_get_the_same_events_when_one_leaves() -> None:
    async with serving(pace=0.001) as (client, _):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=LIMIT, limits=limits) as many:
            run_id = await create(many, "count to 100")
            async with many.stream("GET", f"/runs/{run_id}/events/sse") as response:
                await anext(frames(response))
            tellings = await asyncio.gather(*(follow(many, run_id) for _ in range(100)))
        assert all(told == tellings[0] for told in tellings)
        assert tellings[0][-1][1] == "run_succeeded"


async def test_stopping_the_server_fails_its_runs_and_ends_their_streams() -> None:
    async with serving(pace=LIMIT) as (client, server):
        run_id = await create(client, "hi")
        async with client.stream("GET", f"/runs/{run_id}/events/sse") as response:
            stream = frames(response)
            assert (await anext(stream))[1] == "run_started"
            stopping = asyncio.create_task(server._backend.runs.aclose())
            *_, (_, kind, last) = [frame async for frame in stream]
            await stopping
        assert kind == "run_failed"
        said = "run cancelled during server shutdown"
        assert last["data"] == {"error": said, "reason": "shutdown", "cause": said}
        assert (await client.get(f"/runs/{run_id}")).json()["status"] == "failed"
        refused = await client.post("/runs", json=body("hi"))
        assert (refused.status_code, refused.json()) == (503, {"detail": "the backend is stopping"})


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_server_in_the_middle_of_a_stream(
    signum: signal.Signals, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    env["AGENT_GATEWAY_DATA_DIR"] = str(tmp_path)
    command = ("-m", "agent_gateway", "backend", "--port", "0")
    server = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=env
    )
    assert server.stderr is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (found := re.search(rb"running on (\S+)", line := await server.stderr.readline())):
                assert line, "it ended before it listened"
        async with asyncio.timeout(LIMIT):
            async with httpx.AsyncClient(base_url=found[1].decode(), timeout=LIMIT) as client:
                run_id = await create(client, "count to 10000")
                async with client.stream("GET", f"/runs/{run_id}/events/sse") as response:
                    stream = frames(response)
                    await anext(stream)
                    server.send_signal(signum)
                    *_, (_, kind, last) = [frame async for frame in stream]
            await server.communicate()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    assert (kind, last["data"]["reason"]) == ("run_failed", "shutdown")
