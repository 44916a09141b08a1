"""Existing clients from PyPI and npm, unchanged, tell the same story against the gateway.

Each program makes every call that its client has for chats: CALLS says which those are.
"""

import threading
import time

import pytest

from tests.support.client_program import Program, arguments, node_program, python_program, read
from tests.support.client_story import UNICODE, Story, only_message
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.json_type import Json

CHAT, AGENT = "chat", "agent-chat"
CASES = {
    "pypi-dify-client": (python_program("dify-client"), CHAT),
    "pypi-dify-client-agent": (python_program("dify-client"), AGENT),
    "pypi-dify-client-python": (python_program("dify-client-python"), CHAT),
    "pypi-dify-client-python-agent": (python_program("dify-client-python"), AGENT),
    "pypi-dify-oapi2": (python_program("dify-oapi2"), CHAT),
    "pypi-dify-oapi2-agent": (python_program("dify-oapi2"), AGENT),
    # This one reads no other answers than those of agents.
    "pypi-dify-api-python-agent": (python_program("dify-api-python"), AGENT),
    "npm-dify-client": (node_program("dify-client"), CHAT),
    "npm-dify-client-agent": (node_program("dify-client"), AGENT),
    "npm-dify-ai-provider": (node_program("dify-ai-provider"), CHAT),
    "npm-dify-ai-provider-agent": (node_program("dify-ai-provider"), AGENT),
}
CALLS: str = """
                dify-client dify-client-python dify-oapi2 dify-api-python npm-dify-client npm-dify-ai-provider
streamed             x              x              x             x               x                 x
recalled             x              x              x             x               x                 x
unicode              x              x              x             x               x                 x
thought              x              x              x             x               x                 x
blocking             x              x              x             x               x                 x
stopped              -              x              x             x               x                 -
conversations        x              -              x             x               x                 -
messages             x              -              x             x               x                 -
variables            -              -              x             -               -                 -
renamed              x              -              x             x               x                 -
named                -              -              x             x               x                 -
deleted              -              -              x             x               x                 -
rated                x              x              x             x               x                 -
unrated              x              x              x             x               x                 -
ratings              -              -              x             -               -                 -
suggested            -              x              x             x               -                 -
uploaded             x              x              x             !               x                 -
shown                x              x              x             -               x                 -
parameters           x              -              x             x               x                 -
info                 -              -              x             -               -                 -
meta                 -              -              x             x               -                 -
site                 -              -              x             -               -                 -
heard                -              x              x             !               -                 -
spoken               -              x              x             x               -                 -
broken               x              x              x             x               x                 x
bad_key              x              x              x             x               x                 x
no_query             x              x              x             x               x                 x
no_conversation      x              x              x             x               x                 x
rate_limit           x              x              x             x               x                 x
gone                 -              -              x             x               x                 -
"""
"""Which client has which call (x). One (!) sends forms as if they were JSON, which no server can read."""


def column(program: Program) -> dict[str, str]:
    """The CALLS of a program's client."""
    name = f"npm-{program.client}" if program.path.suffix == ".mjs" else program.client
    table = [line.split() for line in CALLS.strip().splitlines()]
    at = table[0].index(name)
    return {call: marks[at] for call, *marks in table[1:]}


class Told:
    """The report of a program, and the app mode in which it ran."""

    def __init__(self, program: Program, mode: str, report: Json) -> None:
        self.calls = column(program)
        self.mode = mode
        self.report = report

    def part(self, name: str) -> Json | None:
        """A part of the report; None when the client has no such call, or makes it in vain."""
        return self.report[name] if self.calls[name] == "x" else None


@pytest.fixture(scope="module", params=CASES)
def told(request: pytest.FixtureRequest, gateway: GatewayServer, agent_gateway: GatewayServer) -> Told:
    program, mode = CASES[request.param]
    server = agent_gateway if mode == AGENT else gateway
    return Told(program, mode, program.run(*arguments(server, request.param)))


def test_every_call_of_the_client_is_tested(told: Told) -> None:
    assert told.report.keys() == {name for name, how in told.calls.items() if how != "-"}


def test_an_answer_is_streamed(told: Told) -> None:
    streamed = told.report["streamed"]
    assert streamed["answer"] == "You said: Hello."
    assert streamed["conversation_id"]
    assert streamed["message_id"]


def test_the_next_turn_remembers_the_first(told: Told) -> None:
    recalled = told.report["recalled"]
    assert recalled["answer"] == "You said: Hello"
    assert recalled["conversation_id"] == told.report["streamed"]["conversation_id"]


def test_any_text_arrives_unchanged(told: Told) -> None:
    assert told.report["unicode"]["answer"] == UNICODE


def test_agent_thoughts_do_not_disturb_the_client(told: Told) -> None:
    thought = told.report["thought"]
    assert thought["answer"] == "It is noon."
    if "thoughts" in thought:
        assert thought["thoughts"][-1] == {
            "thought": "",
            "tool": "clock",
            "tool_input": '{"zone": "UTC"}',
            "observation": "12:00",
        }
    elif "agent_thought" in thought["events"]:
        assert told.mode == AGENT
        assert thought["events"][-1] == "message_end"


def test_a_blocking_call_gets_the_whole_answer(told: Told) -> None:
    blocking = told.report["blocking"]
    assert blocking["answer"] == "You said: Hello again."
    assert blocking["message_id"]
    assert blocking["metadata"]["usage"]["total_tokens"] == 6
    assert blocking.get("mode", "chat") == "chat"


def test_a_stopped_turn_keeps_its_partial_answer(told: Told) -> None:
    if stopped := told.part("stopped"):
        assert stopped["result"] == "success"
        assert stopped["answer"] == "One two "
        assert stopped["events"][-1] == "message_end"


def test_conversations_are_listed(told: Told) -> None:
    if conversations := told.part("conversations"):
        assert conversations["limit"] == 2
        assert len(conversations["data"]) == 2
        assert {"id", "name", "inputs", "status", "created_at"} <= set(conversations["data"][0])


def test_messages_are_listed(told: Told) -> None:
    if messages := told.part("messages"):
        said = [(message["query"], message["answer"]) for message in messages["data"]]
        # One client continues a user's conversation by itself, so it sent more messages.
        assert said[:2] == [("Hello", "You said: Hello."), ("What did I say?", "You said: Hello")]
        assert messages["has_more"] is False
        assert messages["data"][0]["feedback"]["rating"] == "like"


def test_a_conversation_is_renamed_and_named_automatically(told: Told) -> None:
    if renamed := told.part("renamed"):
        assert (renamed["name"], renamed["status"]) == ("All about hello", "normal")
        assert renamed["id"] == told.report["streamed"]["conversation_id"]
    if named := told.part("named"):
        # The app has no run that makes names: it is the cut of the first query.
        assert (named["name"], named["id"]) == ("Hello", told.report["streamed"]["conversation_id"])


def test_a_conversation_has_no_variables(told: Told) -> None:
    if variables := told.part("variables"):
        assert (variables["data"], variables["has_more"]) == ([], False)


def test_answers_are_rated(told: Told) -> None:
    for part in ("rated", "unrated"):
        if rated := told.part(part):
            assert rated["result"] == "success"
    if ratings := told.part("ratings"):
        message_id = told.report["streamed"]["message_id"]
        assert [item["rating"] for item in ratings["data"] if item["message_id"] == message_id] == ["like"]


def test_questions_are_suggested(told: Told) -> None:
    if suggested := told.part("suggested"):
        assert (suggested["result"], suggested["data"]) == ("success", ["What else?", "Why?"])


def test_a_file_is_uploaded_and_shown_to_the_agent(told: Told) -> None:
    if uploaded := told.part("uploaded"):
        assert (uploaded["name"], uploaded["extension"], uploaded["size"]) == ("note.txt", "txt", 7)
        assert uploaded["mime_type"] == "text/plain"
    if shown := told.part("shown"):
        assert "Look" in shown["answer"]
        assert "note.txt" in shown["answer"]


def test_a_form_that_says_it_is_json_is_refused(told: Told) -> None:
    for part in [name for name, how in told.calls.items() if how == "!"]:
        assert told.report[part]["http_status"] == 400


def test_a_deleted_conversation_is_gone(told: Told) -> None:
    if gone := told.part("gone"):
        assert (gone["http_status"], gone["code"]) == (404, "not_found")


def test_the_app_describes_itself(told: Told) -> None:
    if parameters := told.part("parameters"):
        assert parameters["opening_statement"] == "Hello! What can I do for you?"
        assert parameters["suggested_questions_after_answer"]["enabled"] is True
        assert parameters["file_upload"]["enabled"] is True
    if info := told.part("info"):
        assert info["name"] == "Demo agent"
    if site := told.part("site"):
        assert site["title"] == "Demo agent"


@pytest.mark.parametrize("part", ["heard", "spoken"])
def test_speech_is_refused(told: Told, part: str) -> None:
    if refusal := told.part(part):
        assert (refusal["http_status"], refusal["code"]) == (400, "app_unavailable")


@pytest.mark.parametrize(
    ("part", "status", "code"),
    [
        ("bad_key", 401, "unauthorized"),
        ("no_query", 400, "invalid_param"),
        ("no_conversation", 404, "not_found"),
        ("rate_limit", 429, "rate_limit_error"),
    ],
)
def test_a_refusal_reaches_the_user(told: Told, part: str, status: int, code: str) -> None:
    refusal = told.report[part]
    assert (refusal["http_status"], refusal["code"]) == (status, code)
    assert "secret" not in refusal["message"]


def test_a_failure_in_the_middle_is_an_error_event(told: Told) -> None:
    broken = told.report["broken"]
    assert broken["answer"] == "Half an "
    if "failure" in broken:
        assert "provider_unavailable" in broken["failure"]
    else:
        assert broken["code"] == "provider_unavailable"
        assert broken["events"][-1] == "error"
    assert "secret" not in str(broken)


def test_pings_keep_a_client_connected_while_the_backend_is_silent(
    gateway: GatewayServer, backend: ScriptedBackend, story: Story
) -> None:
    """This client gives up after 5 s without a byte; its turn says nothing for longer than that.

    Longer also when the first second is not counted, at whose end every stream has its first ping.
    """
    before = backend.posts
    program = python_program("dify-client-python").start(*arguments(gateway, "patient"), "slow")
    backend.wait_until(lambda: backend.posts > before, 20)
    began = time.monotonic()
    timer = threading.Timer(6.5, story.slow.open)
    timer.start()
    report = read(program)
    assert time.monotonic() - began > 6
    assert report["answer"] == "At last"


def test_a_client_that_disconnects_does_not_end_its_turn(gateway: GatewayServer, story: Story) -> None:
    """The Vercel AI SDK aborts its request, as when a page is closed."""
    program = node_program("dify-ai-provider")
    report = program.run(*arguments(gateway, "leaver"), "leave")
    assert "abort" in report["events"]
    assert only_message(gateway, "leaver")["answer"] == ""
    story.left.open()
    wait_until(lambda: only_message(gateway, "leaver")["answer"] == "One two three")
