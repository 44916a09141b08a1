"""The gateway as a process: SIGTERM in the middle of a stream, kill -9, and the key of the first start.

With the embedded demo agent, which counts at 25 ms a word.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.chat import Chat, refused
from tests.support.fakes.model_server import running
from tests.support.fleet import Fleet
from tests.support.gateway_process import GatewayProcess, environment
from tests.support.gateway_server import API_KEY, answer_of, wait_until

RESTARTING = """
name: Restarting
mode: chat
composition:
  layers:
    - {name: user, type: plain.prompt, config: {user: "${query}"}}
    - {name: history, type: pydantic_ai.history}
    - {name: llm, type: llm, config: {model: "openai-chat:m-first-silent", on_process_lost: restart}}
"""
DRAIN_SECONDS = 60
"""Longer than any wait here."""


@pytest.mark.slow
def test_sigterm_lets_a_stream_end(database_url: str, tmp_path: Path, user: str) -> None:
    with (
        GatewayProcess(tmp_path, DATABASE_URL=database_url, API_KEY=API_KEY) as process,
        process.client() as client,
    ):
        chat = Chat(client, user)
        process.ready()
        with chat.open("count to 200") as stream:
            stream.until("3 ")
            process.send(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            refused(client.get("/readyz"), 503, "service_unavailable")
            assert client.get("/healthz").status_code == 200
            assert process.printed_key is None, "it was given one"
            response = chat.post("Another")
            refused(response, 503, "service_unavailable")
            assert int(response.headers["Retry-After"]) > 0
            heard = stream.rest()
        assert heard.kinds[-1] == "message_end"
        assert heard.answer.endswith("199 200. Done.")
        assert process.exited() in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output
    assert API_KEY not in process.output


@pytest.mark.slow
def test_sigterm_ends_a_stream_that_takes_too_long(tmp_path: Path, user: str) -> None:
    """Its reader gets an error, the partial answer is stored, and the next process continues from there."""
    with (
        GatewayProcess(tmp_path, API_KEY=API_KEY, DRAIN_SECONDS="0.3") as process,
        process.client() as client,
    ):
        chat = Chat(client, user)
        first = chat.blocking("My name is Ada")
        with chat.open("count to 5000", conversation_id=first["conversation_id"]) as stream:
            stream.until("3 ")
            process.send(signal.SIGTERM)
            heard = stream.rest()
        assert (heard.last["event"], heard.last["code"], heard.last["status"]) == (
            "error",
            "turn_interrupted",
            500,
        )
        assert process.exited() in (0, -signal.SIGTERM)
        assert "Traceback" not in process.output
    with GatewayProcess(tmp_path, API_KEY=API_KEY) as process, process.client() as client:
        chat = Chat(client, user)
        message = chat.message(first["conversation_id"])
        assert (message["answer"], message["status"]) == (heard.answer, "error")
        assert message["error"] == heard.last["message"]
        assert chat.resumed(heard.task_id, after=heard.ids[0]).events == heard.events[1:]
        again = chat.blocking("Who am I?", conversation_id=first["conversation_id"])
        assert "Your name is Ada" in again["answer"]


@pytest.mark.slow
def test_a_second_sigterm_does_not_wait(tmp_path: Path, user: str) -> None:
    with (
        GatewayProcess(tmp_path, API_KEY=API_KEY, DRAIN_SECONDS=str(DRAIN_SECONDS)) as process,
        process.client() as client,
    ):
        chat = Chat(client, user)
        with chat.open("count to 5000") as stream:
            stream.until("3 ")
            process.send(signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            asked = time.monotonic()
            process.send(signal.SIGTERM)
            heard = stream.rest()
        process.exited()
        assert time.monotonic() - asked < DRAIN_SECONDS
        assert (heard.last["event"], heard.last["code"]) == ("error", "turn_interrupted")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "mysql://host/db", "only SQLite and Postgres"),
        ("DATABASE_URL", "nonsense", "no URL"),
        ("DATABASE_URL", "postgresql://host/db", "AGENT_GATEWAY_SECRET_KEY is required"),
        ("FILES_URL", "ftp://x/y", "AGENT_GATEWAY_FILES_URL"),
        ("MODEL", "nonsense", "The model 'nonsense' cannot be used"),
        ("BACKEND_URL", "localhost:9000", "AGENT_GATEWAY_BACKEND_URL"),
        ("PUBLIC_URL", "example.com", "AGENT_GATEWAY_PUBLIC_URL"),
        ("APP_FILE", "nowhere.yaml", "nowhere.yaml"),
        ("PORT", "x", "AGENT_GATEWAY_PORT"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line(tmp_path: Path, name: str, value: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent_gateway", "serve"],
        cwd=tmp_path,
        env=environment(**{name: value}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".data" / "agent-gateway.db").exists()


@pytest.mark.slow
def test_sqlite_survives_a_kill_and_a_restart(tmp_path: Path, user: str) -> None:
    """The first start makes a key and prints it, once. The process after a kill -9 ends what was left."""
    with GatewayProcess(tmp_path, SECRET_KEY="") as process:
        key = process.printed_key
        assert key
        assert key.startswith("app-")
        assert process.output.count(key) == 1
        with process.client(key) as client:
            chat = Chat(client, user)
            first = chat.blocking("My name is Ada")["conversation_id"]
            with chat.open("count to 5000", conversation_id=first) as stream:
                before = stream.until("3 ")
                process.send(signal.SIGKILL)
                process.exited()
                with pytest.raises(httpx.RemoteProtocolError):
                    stream.rest()
    with GatewayProcess(tmp_path, SECRET_KEY="") as process, process.client(key) as client:
        chat = Chat(client, user)
        message = chat.message(first)
        assert (message["query"], message["status"]) == ("count to 5000", "error")
        after = chat.resumed(stream.task_id, after=before[-1]["event_id"])
        assert (after.last["event"], after.last["code"]) == ("error", "turn_interrupted")
        assert "message_replace" not in after.kinds, "nothing is taken back"
        assert message["answer"].startswith(answer_of(before))
        assert answer_of([*before, *after.events]) == message["answer"]
        fresh = chat.resumed(stream.task_id)
        assert (fresh.answer, fresh.kinds[-1]) == (message["answer"], "error")
        assert "Your name is Ada" in chat.blocking("Who am I?", conversation_id=first)["answer"]
        assert process.printed_key is None
        assert key not in process.output
    for path in filter(Path.is_file, (tmp_path / "data").iterdir()):
        assert key.encode() not in path.read_bytes(), "the key itself is stored nowhere"


@pytest.mark.slow
def test_a_killed_gateway_takes_no_text_of_the_embedded_agent_back(fleet: Fleet, user: str) -> None:
    """Another gateway reads the run to where it was logged, and ends it: a reader goes on where it was."""
    one, two = (fleet.process(BACKEND_URL="").ready() for _ in range(2))
    chat = fleet.chat(one, user)
    first = chat.blocking("My name is Ada")["conversation_id"]
    with chat.open("count to 5000", conversation_id=first, params={"ids": 1}) as stream:
        before = stream.until("30 ")
        with fleet.chat(two, user).follow(stream.task_id) as follower:
            follower.until("3 ")
            one.send(signal.SIGKILL)
            one.exited()
            with pytest.raises(httpx.RemoteProtocolError):
                stream.rest()
            followed = follower.rest()
    other = fleet.chat(two, user)
    after = other.resumed(stream.task_id, after=before[-1]["event_id"])
    assert (after.last["event"], after.last["code"]) == ("error", "turn_interrupted")
    assert "message_replace" not in after.kinds
    message = other.message(first)
    assert message["status"] == "error"
    assert message["answer"].startswith(answer_of(before))
    assert answer_of([*before, *after.events]) == message["answer"] == followed.answer
    assert "Your name is Ada" in other.blocking("Who am I?", conversation_id=first)["answer"]


@pytest.mark.slow
def test_a_turn_of_the_embedded_agent_is_started_again_if_its_app_wants_that(
    fleet: Fleet, user: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-provider")
    app = tmp_path / "app.yaml"
    app.write_text(RESTARTING)
    with running(repeats="") as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        one, two = (fleet.process(BACKEND_URL="", APP_FILE=app).ready() for _ in range(2))
        begun = fleet.chat(one, user).background("Hello")
        chat = fleet.chat(two, user)
        with chat.follow(begun["task_id"]) as follower:
            wait_until(lambda: provider.bodies)
            one.send(signal.SIGKILL)
            heard = follower.rest()
    assert (heard.answer, heard.kinds[-1]) == ("Hi there!", "message_end")


@pytest.mark.slow
def test_a_stop_reaches_the_embedded_agent_of_another_process(fleet: Fleet, user: str) -> None:
    one, two = (fleet.process(BACKEND_URL="").ready() for _ in range(2))
    with fleet.chat(one, user).open("count to 5000", params={"ids": 1}) as stream:
        stream.until("3 ")
        fleet.chat(two, user).stop(stream.task_id)
        heard = stream.rest()
    assert heard.kinds[-1] == "message_end"
    assert fleet.rows(stream.task_id).turn.outcome == "stopped"
