"""The examples of docs/bring-your-own-agent.md: real processes behind a gateway, driven over HTTP."""

import json
import re
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agent_gateway.limits import Limits
from tests.support.chat import Chat, refused
from tests.support.fakes.model_server import ModelServer, serving
from tests.support.fakes.model_steps import Answer, ModelRequest, answer, call
from tests.support.fakes.script import Gate
from tests.support.files import PNG, local, upload
from tests.support.gateway_process import GatewayProcess, OwnAgentProcess
from tests.support.gateway_server import (
    API_KEY,
    EARLY_FAILURES_HAVE_A_STATUS,
    GatewayServer,
    answer_of,
    wait_until,
)
from tests.support.human_input import form_of, submit, token_of
from tests.support.json_type import Json
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "bring-your-own-agent.md"
EXAMPLES = ROOT / "docs" / "examples"
KEY = "sk-secret-of-the-model-server"
PLAIN, OPENAI, PYDANTIC_AI = (f"own_agent_{name}:agent" for name in ("plain", "openai", "pydantic_ai"))


@contextmanager
def user_of(
    agent: str,
    folder: Path,
    place: Path = EXAMPLES,
    *,
    settings: Json | None = None,
    environ: Mapping[str, str] | None = None,
) -> Generator[tuple[Chat, OwnAgentProcess]]:
    """A user of a gateway whose backend serves this agent, started in `place`."""
    limits = Limits(requests=EARLY_FAILURES_HAVE_A_STATUS)
    settings = {"app_mode": "agent-chat", **(settings or {})}
    with (
        OwnAgentProcess(agent, place, folder, environ or {}) as backend,
        GatewayServer(folder / "data", limits=limits, backend_url=backend.url, **settings) as server,
        server.client() as client,
    ):
        yield Chat(client, "ada"), backend


@pytest.fixture
def models() -> Generator[ModelServer]:
    """A model server on this machine, in whose errors the key is."""
    with serving(repeats=KEY) as server:
        server.respond("m-hold", lambda _: answer("Hi ", "there!", Gate()))
        server.respond("m-call", as_told)
        yield server


def as_told(request: ModelRequest) -> Answer:
    """Calls the tool that the user names, as in `book_seat {"seat": "A1"}`, and repeats what it returns."""
    last = request.messages[-1]
    if last["role"] == "tool":
        return answer("It says: ", str(last["content"]))
    name, _, arguments = str(last["content"]).partition(" ")
    return answer(call(name, json.loads(arguments)))


def left(models: ModelServer) -> int:
    """How many requests their client left before the end."""
    return sum(one.abandoned for one in models.requests)


def asks(agent: str, model: str, models: ModelServer) -> dict[str, str]:
    """The environment in which an example asks this model."""
    if agent == OPENAI:
        return {"MODEL_BASE_URL": models.base_url, "MODEL": model, "MODEL_API_KEY": KEY}
    named = {"MODEL": f"openai-chat:{model}", "OPENAI_BASE_URL": models.base_url}
    return {**named, "OPENAI_API_KEY": KEY, "OPENAI_MAX_RETRIES": "0"}


# -- the page ----------------------------------------------------------------------------------------


def block(language: str) -> str:
    """The first block of code in this language on the page."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def test_the_first_agent_of_the_page_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(block("python"))
    with user_of("my_agent:agent", tmp_path, tmp_path) as (chat, _):
        first = chat.blocking("Hello")
        second = chat.blocking("Bye", conversation_id=first["conversation_id"])
    assert first["answer"] == "This is message 1. You said: Hello"
    assert second["answer"] == "This is message 2. You said: Bye"


ECHO = """
import json

async def agent(turn):
    context = {name: turn.context[name] for name in sorted(turn.context)}
    files = [[file.kind, file.name, file.media_type, len(file.data), bool(file.url)] for file in turn.files]
    yield json.dumps([context, turn.user_id, turn.conversation_id, turn.instructions, files])
"""


def test_the_app_of_the_page_passes_inputs_and_files(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "app.yaml").write_text(block("yaml"))
    settings = {"app_file": tmp_path / "app.yaml", "app_mode": "chat"}
    with user_of("echo:agent", tmp_path, tmp_path, settings=settings) as (chat, _):
        uploaded = [
            local(upload(chat)["id"]),
            local(upload(chat, "list.txt", b"Milk", "text/plain")["id"], "document"),
        ]
        answer = chat.blocking("Hello", inputs={"city": "Lisbon"}, files=uploaded)
    conversation = answer["conversation_id"]
    assert json.loads(answer["answer"]) == [
        {"city": "Lisbon", "conversation_id": conversation, "user_id": "ada"},
        "ada",
        conversation,
        "You are a city guide.",
        [
            ["image", "cat.png", "image/png", len(PNG), False],
            ["document", "list.txt", "text/plain", 4, False],
        ],
    ]


# -- plain Python ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Chat, OwnAgentProcess]]:
    with user_of(PLAIN, tmp_path_factory.mktemp("plain")) as found:
        yield found


def test_the_plain_agent_streams_its_steps_and_its_words(plain: tuple[Chat, OwnAgentProcess]) -> None:
    chat, _ = plain
    heard = chat.streaming("Add milk")
    assert heard.answer == "Added milk for 40 cents. The list has 1 items now."
    steps = [event for event in heard.events if event["event"] == "agent_thought"]
    assert steps[0]["thought"].startswith("The user wants milk. ")
    stored = chat.message(heard.conversation_id)["agent_thoughts"]
    assert [(step["thought"], step["tool"]) for step in stored] == [
        ("The user wants milk. I look for its price first.", ""),
        ("", "find_price"),
    ]
    assert json.loads(stored[1]["tool_input"]) == {"item": "milk"}
    assert json.loads(stored[1]["observation"]) == {"price": 40}
    assert heard.kinds[-1] == "message_end"


def test_the_next_turn_of_the_plain_agent_has_its_state_and_the_history(
    plain: tuple[Chat, OwnAgentProcess],
) -> None:
    chat, _ = plain
    conversation = chat.blocking("add milk")["conversation_id"]
    chat.blocking("add bread", conversation_id=conversation)
    listed = chat.blocking("list", conversation_id=conversation)["answer"]
    assert listed == "On the list: milk, bread."
    again = chat.blocking("What?", conversation_id=conversation)["answer"]
    assert again == "I do not understand. Before this you said: list"
    assert chat.blocking("list")["answer"] == "On the list: nothing."


def test_a_file_of_the_plain_agent_is_stored(plain: tuple[Chat, OwnAgentProcess]) -> None:
    chat, _ = plain
    conversation = chat.blocking("add milk")["conversation_id"]
    heard = chat.streaming("export", conversation_id=conversation)
    [file] = [event for event in heard.events if event["event"] == "message_file"]
    stored = chat.client.get(file["url"])
    assert (stored.status_code, stored.content) == (200, b"item\nmilk")
    assert stored.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize(
    ("action", "said", "left"),
    [("yes", "Cleared 1 items.", "nothing"), ("no", "Nothing was cleared.", "milk")],
)
def test_the_plain_agent_asks_and_goes_on_with_the_answer(
    plain: tuple[Chat, OwnAgentProcess], action: str, said: str, left: str
) -> None:
    chat, _ = plain
    conversation = chat.blocking("add milk")["conversation_id"]
    asked = chat.streaming("clear", conversation_id=conversation)
    assert asked.answer == "Shall I really clear the whole list?"
    assert [(one["id"], one["title"]) for one in form_of(asked)["actions"]] == [
        ("yes", "Clear it"),
        ("no", "Keep it"),
    ]
    submitted = submit(chat, token_of(asked), action)
    assert submitted.status_code == 200, submitted.text
    assert chat.resumed(submitted.json()["task_id"]).answer == said
    assert chat.blocking("list", conversation_id=conversation)["answer"] == f"On the list: {left}."


def test_a_message_in_place_of_the_form_is_the_answer(plain: tuple[Chat, OwnAgentProcess]) -> None:
    chat, _ = plain
    conversation = chat.blocking("add milk")["conversation_id"]
    chat.blocking("clear", conversation_id=conversation)
    said = chat.blocking("Better not.", conversation_id=conversation)["answer"]
    assert said == "Nothing was cleared."
    again = chat.blocking("Hm", conversation_id=conversation)["answer"]
    assert again == "I do not understand. Before this you said: Better not."


def test_a_stopped_turn_of_the_plain_agent_keeps_what_was_said(plain: tuple[Chat, OwnAgentProcess]) -> None:
    chat, backend = plain
    with chat.open("count to 100000") as stream:
        stream.until("3 ")
        chat.stop(stream.task_id)
        heard = stream.rest()
    assert heard.kinds[-1] == "message_end"
    assert heard.answer.startswith("1 2 3 ")
    assert chat.message(heard.conversation_id)["answer"] == heard.answer
    wait_until(lambda: "run cancelled" in backend.output)
    again = chat.blocking("Hm", conversation_id=heard.conversation_id)["answer"]
    assert again == "I do not understand. Before this you said: count to 100000"


def test_an_exception_of_the_plain_agent_fails_the_turn_and_its_text_is_told_to_nobody(
    plain: tuple[Chat, OwnAgentProcess],
) -> None:
    chat, backend = plain
    heard = chat.streaming("add milk")
    failed = chat.post("count to kingdom", conversation_id=heard.conversation_id)
    body = refused(failed, 500, "internal_server_error")
    assert "kingdom" not in body["message"]
    wait_until(lambda: "ValueError at own_agent_plain.py:" in backend.output)
    assert "kingdom" not in backend.output
    again = chat.blocking("list", conversation_id=heard.conversation_id)["answer"]
    assert again == "On the list: milk."


@pytest.mark.slow
def test_the_plain_agent_goes_on_while_the_gateway_is_killed_and_started_again(tmp_path: Path) -> None:
    with OwnAgentProcess(PLAIN, EXAMPLES, tmp_path) as backend:
        settings = {"BACKEND_URL": backend.url, "API_KEY": API_KEY, "LEASE_SECONDS": 2}
        with (
            GatewayProcess(tmp_path, **settings) as gateway,
            gateway.client() as client,
            Chat(client, "ada").open("count to 300") as stream,
        ):
            before = stream.until("3 ")
            gateway.send(signal.SIGKILL)
            gateway.exited()
            with pytest.raises(httpx.RemoteProtocolError):
                stream.rest()
        with GatewayProcess(tmp_path, **settings) as gateway, gateway.client() as client:
            after = Chat(client, "ada").resumed(stream.task_id, after=before[-1]["event_id"])
        wait_until(lambda: "run succeeded" in backend.output)
        assert backend.output.count("route=/runs status=202") == 1
    assert after.kinds[-1] == "message_end"
    assert answer_of([*before, *after.events]) == "".join(f"{number} " for number in range(1, 301))


# -- an OpenAI-compatible server, and pydantic-ai ----------------------------------------------------


@pytest.mark.parametrize("agent", [OPENAI, pytest.param(PYDANTIC_AI, marks=pytest.mark.slow)])
def test_the_words_of_the_model_are_streamed_and_remembered(
    tmp_path: Path, models: ModelServer, agent: str
) -> None:
    with user_of(agent, tmp_path, environ=asks(agent, "m", models)) as (chat, _):
        heard = chat.streaming("My name is Ada.")
        second = chat.blocking("What is my name?", conversation_id=heard.conversation_id)
    assert heard.kinds == ["agent_message", "agent_message", "message_end"]
    assert heard.answer == second["answer"] == "Hi there!"
    usage = second["metadata"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 3, 14)
    said = [(one["role"], one["content"]) for one in models.requests[1].body["messages"]]
    assert said[-3:] == [
        ("user", "My name is Ada."),
        ("assistant", "Hi there!"),
        ("user", "What is my name?"),
    ]
    assert "You are a helpful assistant." in json.dumps(said)


@pytest.mark.parametrize("agent", [OPENAI, pytest.param(PYDANTIC_AI, marks=pytest.mark.slow)])
def test_a_stop_closes_the_connection_to_the_model(tmp_path: Path, models: ModelServer, agent: str) -> None:
    with user_of(agent, tmp_path, environ=asks(agent, "m-hold", models)) as (chat, _):
        with chat.open("Hello") as stream:
            stream.until("there!")
            assert left(models) == 0
            chat.stop(stream.task_id)
            heard = stream.rest()
        wait_until(lambda: left(models) == 1)
        with chat.open("And now?", conversation_id=heard.conversation_id) as stream:
            stream.until("there!")
            chat.stop(stream.task_id)
            stream.rest()
    assert (heard.answer, heard.kinds[-1]) == ("Hi there!", "message_end")
    said = [one["content"] for one in models.requests[1].body["messages"] if one["role"] != "system"]
    assert said == ["Hello", "Hi there!", "And now?"]


@pytest.mark.parametrize(
    ("agent", "model", "status", "code"),
    [
        (OPENAI, "m-429", 429, "rate_limit_error"),
        (OPENAI, "m-401", 400, "provider_not_initialize"),
        (OPENAI, "m-503", 503, "provider_unavailable"),
        (OPENAI, "m-400", 400, "completion_request_error"),
        (OPENAI, "m-end", 502, "answer_incomplete"),
        (OPENAI, "m-cut", 503, "provider_unavailable"),
        pytest.param(PYDANTIC_AI, "m-429", 429, "rate_limit_error", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_fails_has_its_error_and_the_key_is_told_to_nobody(
    tmp_path: Path, models: ModelServer, agent: str, model: str, status: int, code: str
) -> None:
    with user_of(agent, tmp_path, environ=asks(agent, model, models)) as (chat, backend):
        failed = chat.post("Hello", response_mode="blocking")
        wait_until(lambda: "run failed" in backend.output)
    assert (failed.status_code, failed.json()["code"]) == (status, code)
    assert KEY not in failed.text + backend.output


@pytest.mark.slow
def test_the_tool_of_a_pydantic_ai_agent_is_a_step(tmp_path: Path, models: ModelServer) -> None:
    with user_of(PYDANTIC_AI, tmp_path, environ=asks(PYDANTIC_AI, "m-call", models)) as (chat, _):
        heard = chat.streaming('look_up_seat {"seat": "A2"}')
        [step] = chat.message(heard.conversation_id)["agent_thoughts"]
    assert heard.answer == "It says: taken"
    assert (step["tool"], json.loads(step["tool_input"]), step["observation"]) == (
        "look_up_seat",
        {"seat": "A2"},
        "taken",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "said"),
    [("approve", "It says: Seat A1 is booked."), ("reject", "It says: The user rejected this call.")],
)
def test_a_tool_of_a_pydantic_ai_agent_waits_for_approval(
    tmp_path: Path, models: ModelServer, action: str, said: str
) -> None:
    with user_of(PYDANTIC_AI, tmp_path, environ=asks(PYDANTIC_AI, "m-call", models)) as (chat, _):
        asked = chat.streaming('book_seat {"seat": "A1"}')
        assert asked.answer.startswith("The agent wants to call the tool `book_seat`.")
        assert '"seat": "A1"' in asked.answer
        submitted = submit(chat, token_of(asked), action).json()
        assert chat.resumed(submitted["task_id"]).answer == said
        looked = chat.blocking('look_up_seat {"seat": "A1"}', conversation_id=asked.conversation_id)
    assert looked["answer"] == f"It says: {'taken' if action == 'approve' else 'free'}"
