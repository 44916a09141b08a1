"""docs/examples/minimal_backend.py: the gateway drives it over HTTP, as a process of its own."""

import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.chat import Chat, refused
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_process import START_SECONDS, environment
from tests.support.gateway_server import BOUND, GatewayServer, wait_until
from tests.support.outbox import outbox_entries
from tests.support.paths import ROOT

PROGRAM = ROOT / "docs" / "examples" / "minimal_backend.py"
LISTENING = re.compile(r"listening on (http://\S+)\n")


@contextmanager
def backend(folder: Path, token: str = "") -> Generator[str]:
    """The program on a free port; its URL."""
    output = folder / "backend-output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--port", "0"],
            env={**environment(), "BACKEND_TOKEN": token},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: LISTENING.search(output.read_text()) or process.poll() is not None, START_SECONDS)
        found = LISTENING.search(output.read_text())
        assert found, output.read_text()
        yield found[1]
    finally:
        process.kill()
        process.wait(BOUND)
    assert "Traceback" not in output.read_text()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with backend(tmp_path) as url:
        yield url


@pytest.fixture
def chat(url: str, tmp_path: Path) -> Iterator[Chat]:
    """A user of a gateway on the backend."""
    with GatewayServer(tmp_path / "data", backend_url=url) as server, server.client() as client:
        yield Chat(client, "ada")


def test_a_turn_of_the_minimal_backend_streams_and_completes(chat: Chat) -> None:
    heard = chat.streaming("Hello")
    assert heard.kinds == ["message", "message", "message_end"]
    assert heard.answer == "You said: Hello"
    assert chat.message(heard.conversation_id)["answer"] == "You said: Hello"


def test_the_next_turn_remembers_the_previous_one(chat: Chat) -> None:
    first = chat.blocking("My name is Ada.")
    again = chat.blocking("And now?", conversation_id=first["conversation_id"])
    assert again["answer"] == "You said: And now? (before that: My name is Ada.)"


def test_the_agent_gets_the_url_of_a_file(chat: Chat) -> None:
    file = {"type": "image", "transfer_method": "remote_url", "url": "https://x.test/a.png"}
    answer = chat.blocking("Look", files=[file])["answer"]
    assert answer.startswith("You said: Look\n")
    assert "https://x.test/a.png" in answer


def test_a_stopped_turn_is_kept_and_remembered_by_the_next(chat: Chat) -> None:
    with chat.open("Count to 100000") as stream:
        seen = stream.until("3 ")
        chat.stop(stream.task_id)
        heard = stream.rest()
    assert heard.kinds[-1] == "message_end"
    assert heard.answer.startswith("1 2 3 ")
    message = chat.message(seen[0]["conversation_id"])
    assert (message["answer"], message["status"]) == (heard.answer, "normal")
    again = chat.blocking("And now?", conversation_id=heard.conversation_id)
    assert again["answer"] == "You said: And now? (before that: Count to 100000)"


def test_a_failing_agent_ends_the_turn_with_an_error(chat: Chat) -> None:
    heard = chat.streaming("Hello")
    response = chat.post("Count to many", conversation_id=heard.conversation_id)
    refused(response, 500, "internal_server_error")
    again = chat.blocking("And now?", conversation_id=heard.conversation_id)
    assert again["answer"] == "You said: And now? (before that: Hello)"


def test_a_cut_event_stream_is_resumed_without_a_gap(url: str, tmp_path: Path) -> None:
    # Connections of the gateway: its question for the generation, POST /runs, then the event streams.
    with (
        http_proxy(url, [10_000, 10_000, 900, 1_300]) as proxy,
        GatewayServer(tmp_path / "data", backend_url=proxy.url) as server,
        server.client() as client,
    ):
        heard = Chat(client, "ada").streaming("Count to 12")
        streams = [head.split(" ")[1] for head in proxy.heads if "/events/sse" in head]
    assert heard.answer == "".join(f"{number} " for number in range(1, 13))
    assert heard.kinds[-1] == "message_end"
    assert ["after=" in path for path in streams] == [False, True, True]


def test_a_conversation_can_be_deleted(url: str, tmp_path: Path) -> None:
    with (
        http_proxy(url, []) as proxy,
        GatewayServer(tmp_path / "data", backend_url=proxy.url) as server,
        server.client() as client,
    ):
        conversation = Chat(client, "ada").blocking("Hello")["conversation_id"]
        deleted = client.request("DELETE", f"/conversations/{conversation}", json={"user": "ada"})
        assert deleted.status_code == 204
        # The second run is the clean-up run, which fails for want of a model: that settles it.
        wait_until(lambda: len([head for head in proxy.heads if head.startswith("post /runs ")]) == 2)
        wait_until(lambda: not outbox_entries(server.settings.resolved_database_url()))


def test_requests_without_the_token_are_refused(tmp_path: Path) -> None:
    with backend(tmp_path, token="secret") as url:
        assert httpx.post(f"{url}/runs", json={}).status_code == 401
        with (
            GatewayServer(tmp_path / "data", backend_url=url, backend_token="secret") as server,
            server.client() as client,
        ):
            assert Chat(client, "ada").blocking("Hello")["answer"] == "You said: Hello"


def test_the_event_log_is_the_same_from_any_cursor(url: str) -> None:
    layers = [
        {"name": "prompt", "type": "plain.prompt", "config": {"user": "Hello"}},
        {"name": "llm", "type": "llm"},
    ]
    with httpx.Client(base_url=url, timeout=BOUND, trust_env=False) as client:
        run = client.post("/runs", json={"composition": {"schema_version": 1, "layers": layers}}).json()
        path = f"/runs/{run['run_id']}/events/sse"
        whole = client.get(path).content
        assert client.get(path).content == whole
        frames = whole.split(b"\n\n")[:-1]
        assert [frame.split(b"\n")[1] for frame in frames] == [
            b"event: run_started",
            b"event: pydantic_ai_event",
            b"event: pydantic_ai_event",
            b"event: run_succeeded",
        ]
        for number, frame in enumerate(frames[:-1], start=1):
            after = frame.split(b"\n")[0].removeprefix(b"id: ").decode()
            rest = whole.split(b"\n\n", number)[-1]
            assert client.get(path, params={"after": after}).content == rest
            assert client.get(path, headers={"Last-Event-ID": after}).content == rest
            assert client.get(path, params={"after": after}, headers={"Last-Event-ID": "1"}).content == rest


def test_malformed_requests_are_refused_without_a_run(url: str) -> None:
    with httpx.Client(base_url=url, timeout=BOUND, trust_env=False) as client:
        assert client.get("/openapi.json").status_code == 200
        for body in (b"", b"no JSON", b"[]", b'{"composition": {"layers": [{"name": "only"}]}}'):
            assert client.post("/runs", content=body).status_code == 422
        assert client.post("/runs/unknown/cancel", json={}).status_code == 404
        assert client.get("/runs/unknown/events/sse").status_code == 404
        run = client.post("/runs", json={"composition": {"layers": []}}).json()["run_id"]
        log = client.get(f"/runs/{run}/events/sse").text
        assert "run_failed" in log
        assert "Missing required 'llm' layer." in log
        assert client.get(f"/runs/{run}/events/sse", params={"after": "garbage"}).status_code == 422
        assert client.get(f"/runs/{run}").json()["status"] == "failed"
        assert client.post(f"/runs/{run}/cancel", json={}).status_code == 409
