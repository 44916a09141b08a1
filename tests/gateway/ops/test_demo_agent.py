"""What the README promises of a fresh gateway: the demo agent in process, and the same one over HTTP."""

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.apps.config import AppConfig, LayerTemplate, default_app
from agent_gateway.backend.embedded import EmbeddedBackend
from agent_gateway.backend.embedded.server import BackendServer, create_backend_app
from agent_gateway.domain.ids import new_id
from agent_gateway.openers import using
from agent_gateway.server.config import server_config
from agent_gateway.store.db.database import Database
from agent_gateway.store.runs.log import StoredRunLog
from tests.support.chat import Chat, refused
from tests.support.databases import postgres_database
from tests.support.gateway_server import BOUND, GatewayServer, answer_of
from tests.support.human_input import submitted, token_of
from tests.support.outbox import all_done, snapshot_row
from tests.support.rows import add_app
from tests.support.run_log import new_file


@contextmanager
def backend_over_http(folder: Path) -> Generator[str]:
    """What `agent-gateway backend` serves, in a thread; its URL."""
    database = Database(new_file(folder))
    backend = EmbeddedBackend("", StoredRunLog(database, new_id(), 8.0, 3600.0))
    listener = socket.create_server(("127.0.0.1", 0))
    config = server_config(create_backend_app(backend, "token", storage=using(database)))
    server = BackendServer(config, backend)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(BOUND)


def test_an_unsupported_app_fails_its_turn_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An app of another backend: the turn's line names the run, and the layer that the agent lacks."""
    with GatewayServer(tmp_path) as server:
        app = default_app().model_dump(exclude_unset=True) | {"name": "x"}
        app["composition"] = default_app().composition.model_copy(
            update={"layers": [LayerTemplate(name="a", type="vendor.unheard_of")]}
        )
        add_app(server.settings.resolved_database_url(), key := "app-of-another-backend", AppConfig(**app))
        with server.client(key) as client:
            refused(Chat(client, "ada").post("Hello"), 500, "internal_server_error")
    [line] = [one.__dict__ for one in caplog.records if one.name == "agent_gateway.turns.end_report"]
    assert "vendor.unheard_of" in line["cause"]
    assert line["run_id"]
    assert "Hello" not in caplog.text


@pytest.fixture(scope="module", params=["in process, on SQLite", "over HTTP, on Postgres"])
def demo_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    with ExitStack() as stack:
        settings: dict[str, Any] = {}
        if request.param.startswith("over HTTP"):
            template = request.getfixturevalue("postgres_template")
            settings["database_url"] = stack.enter_context(postgres_database(template))
            settings["backend_url"] = stack.enter_context(
                backend_over_http(tmp_path_factory.mktemp("backend"))
            )
            settings["backend_token"] = "token"
        yield stack.enter_context(GatewayServer(tmp_path_factory.mktemp("demo"), **settings))


@pytest.fixture
def demo(demo_server: GatewayServer, user: str) -> Iterator[Chat]:
    with demo_server.client() as client:
        yield Chat(client, user)


def test_the_demo_agent_streams_and_remembers(demo: Chat) -> None:
    first = demo.streaming("Hello, my name is Ada")
    assert first.kinds[-1] == "message_end"
    assert len(first.events) > 10, "word by word"
    assert "Ada" in first.answer
    assert "demo agent" in first.answer
    second = demo.blocking("What is my name?", conversation_id=first.conversation_id)
    assert "Your name is Ada" in second["answer"]
    assert second["metadata"]["usage"]["total_tokens"] > 0
    stored = demo.messages(first.conversation_id)
    assert [message["answer"] for message in stored] == [first.answer, second["answer"]]


def test_words_arrive_before_the_answer_is_complete(demo_server: GatewayServer, demo: Chat) -> None:
    with demo.open("count to 5000") as stream:
        stream.until("1 ")
        running = [live.turn.task_id for live in demo_server.gateway.live.running()]
        assert stream.task_id in running
        demo.stop(stream.task_id)
    heard = demo.streaming("count to 40")
    assert heard.answer.endswith("39 40. Done.")


def test_tools_and_thoughts_are_shown(demo: Chat) -> None:
    heard = demo.streaming("What is 12 * 7, and what time is it?", params={"mode": "agent-chat"})
    told = {event["id"]: event for event in heard.events if event["event"] == "agent_thought"}
    reasoning, calculation, clock = told.values()
    assert "calculate" in reasoning["thought"]
    assert (calculation["tool"], calculation["observation"]) == ("calculate", "12 * 7 = 84")
    assert clock["tool"] == "current_time"
    assert "UTC" in clock["observation"]
    assert "84" in heard.answer
    thoughts = demo.message(heard.conversation_id)["agent_thoughts"]
    assert [item["observation"] for item in thoughts] == [event["observation"] for event in told.values()]


def test_the_demo_agent_asks_and_uses_the_answer(demo: Chat) -> None:
    heard = demo.streaming("Ask me whether to deploy.")
    assert heard.kinds[-2:] == ["human_input_required", "message_end"]
    assert heard.answer.startswith("Shall I deploy?")
    answer = demo.resumed(submitted(demo, token_of(heard), "reject", comment="not on Friday")["task_id"])
    assert answer.answer.startswith('You chose "Reject", and your comment is "not on Friday".')
    again = demo.streaming("Ask me if you should go", conversation_id=heard.conversation_id)
    assert again.kinds[-2] == "human_input_required"
    message = demo.blocking("Why not?", conversation_id=heard.conversation_id)
    assert message["answer"].startswith('You answered: "Why not?".')
    last = demo.blocking("What did I say before?", conversation_id=heard.conversation_id)
    assert "Ask me if you should go" in last["answer"]


def test_a_stop_keeps_the_partial_answer_of_the_demo_agent(demo: Chat) -> None:
    with demo.open("count to 5000") as stream:
        stream.until("5 ")
        demo.stop(stream.task_id)
        heard = stream.rest()
    assert "Done" not in heard.answer
    assert heard.kinds[-1] == "message_end"
    message = demo.message(heard.conversation_id)
    assert (message["answer"], message["status"]) == (heard.answer, "normal")
    again = demo.blocking("My name is Ada", conversation_id=heard.conversation_id)
    assert "Ada" in again["answer"]


def test_a_cut_stream_of_the_demo_agent_resumes(demo: Chat) -> None:
    with demo.open("count to 60") as stream:
        before = stream.until("10 ")
    after = demo.resumed(stream.task_id, last_event_id=before[-1]["event_id"])
    numbers = " ".join(map(str, range(1, 61)))
    assert answer_of([*before, *after.events]).endswith(f" {numbers}. Done.")
    assert demo.resumed(stream.task_id).answer == answer_of([*before, *after.events])


def test_a_deleted_conversation_closes_its_session(demo_server: GatewayServer, demo: Chat) -> None:
    """The agent takes the clean-up run at its first try."""
    url = demo_server.settings.resolved_database_url()
    conversation_id = demo.blocking("My name is Ada")["conversation_id"]
    path = f"/conversations/{conversation_id}"
    assert demo.client.request("DELETE", path, json={"user": demo.user}).status_code == 204
    all_done(url)
    assert snapshot_row(url, conversation_id) is None


def test_numbers_in_a_url_are_nothing_to_calculate(demo: Chat) -> None:
    """Those of files have ids with minus signs."""
    told = demo.blocking("What do I need? http://127.0.0.1:8000/files/7583-9592-11/download?ticket=1-2")
    assert told["answer"].startswith("You said:")
