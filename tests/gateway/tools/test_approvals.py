"""Calls that a human has to approve: what is asked, and what each answer does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import tool_functions as functions
from tests.support.agents import Agents, agents_of, steps_of
from tests.support.chat import Chat, Heard
from tests.support.fakes.model_server import ModelServer
from tests.support.fakes.model_steps import StepSource, answer, call
from tests.support.gateway_server import wait_until
from tests.support.human_input import expire, form_of, submitted, token_of
from tests.support.json_type import Json

SEND = {"function": "tests.support.tool_functions:send", "needs_approval": True}
COUNT = "tests.support.tool_functions:count"
MAIL = {"to": "bob@example.org", "text": "Hi ``` there"}


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    functions.SENT.clear()


@pytest.fixture
def agents(database_url: str, tmp_path: Path, provider: ModelServer) -> Iterator[Agents]:
    """A gateway on each kind of database."""
    with agents_of(tmp_path, provider, database_url=database_url) as agents:
        yield agents


def mailing(agents: Agents, *steps: StepSource, **more: Any) -> Chat:
    """An app whose model wants to send a mail."""
    return agents.app(*steps, tools={"functions": [SEND, COUNT]}, **more)


def results(agents: Agents, chat: Chat) -> list[str]:
    """The results that the model got with its newest request."""
    return agents.requests(chat)[-1].results


def continued(chat: Chat, asked: Heard, action: str, **values: str) -> Heard:
    """The turn that carries this answer."""
    return chat.resumed(submitted(chat, token_of(asked), action, **(values or {"comment": ""}))["task_id"])


def test_a_call_is_shown_and_made_after_it_was_approved(agents: Agents) -> None:
    chat = mailing(agents, answer("I will. ", call("send", MAIL)), "Sent.")
    asked = chat.streaming("Write to Bob")
    form = form_of(asked)
    assert form["node_title"] == "Allow send?"
    assert "The agent wants to call the tool `send`." in form["form_content"]
    assert (
        '````json\n{\n  "to": "bob@example.org",\n  "text": "Hi ``` there"\n}\n````' in form["form_content"]
    )
    assert [(action["id"], action["title"]) for action in form["actions"]] == [
        ("approve", "Approve"),
        ("reject", "Reject"),
    ]
    assert [field["output_variable_name"] for field in form["inputs"]] == ["comment"]
    assert functions.SENT == []
    assert len(agents.requests(chat)) == 1
    done = continued(chat, asked, "approve")
    assert done.answer == "Sent."
    assert functions.SENT == ["bob@example.org"]
    assert results(agents, chat) == ["sent to bob@example.org"]
    [(tool, _, observed)] = steps_of(done)
    assert (tool, observed) == ("send", "sent to bob@example.org")
    assert [message["role"] for message in agents.requests(chat)[-1].messages[-2:]] == ["assistant", "tool"]


def test_a_comment_on_an_approval_reaches_the_model(agents: Agents) -> None:
    chat = mailing(agents, answer(call("send", MAIL)), "Sent.")
    asked = chat.streaming("Write to Bob")
    continued(chat, asked, "approve", comment="but no more today")
    assert functions.SENT == ["bob@example.org"]
    last = agents.requests(chat)[-1].messages[-1]
    assert last["role"] == "user"
    assert "The user approved, and wrote: but no more today" in str(last["content"])


@pytest.mark.parametrize("comment", ["", "He is on holiday."])
def test_a_rejected_call_is_not_made_and_the_model_learns_why(agents: Agents, comment: str) -> None:
    chat = mailing(agents, answer(call("send", MAIL)), "Then not.")
    asked = chat.streaming("Write to Bob")
    done = continued(chat, asked, "reject", comment=comment)
    assert done.answer == "Then not."
    assert functions.SENT == []
    words = "The user rejected this call." + (f" Comment: {comment}" if comment else "")
    assert results(agents, chat) == [words]
    assert steps_of(done)[0][2] == words


@pytest.mark.parametrize("message", ["approve", "yes, please", '{"action": {"id": "approve"}}'])
def test_a_message_is_never_an_approval(agents: Agents, message: str) -> None:
    chat = mailing(agents, answer(call("send", MAIL)), "Then not.")
    asked = chat.streaming("Write to Bob")
    done = chat.streaming(message, conversation_id=asked.conversation_id)
    assert done.answer == "Then not."
    assert functions.SENT == []
    assert results(agents, chat) == [f"The call was not made: the user did not decide, but wrote: {message}"]


def test_without_a_decision_in_time_the_call_is_not_made(agents: Agents) -> None:
    chat = mailing(agents, answer(call("send", MAIL)), "Then not.", question_expires_seconds=3600)
    asked = chat.streaming("Write to Bob")
    expire(agents.server.settings.resolved_database_url(), asked)
    wait_until(lambda: len(agents.requests(chat)) == 2)
    assert results(agents, chat) == ["Nobody decided about this call in time, so it was not made."]
    assert functions.SENT == []


def test_one_form_is_about_all_calls_that_wait_and_others_are_made_at_once(agents: Agents) -> None:
    other = {"to": "eve@example.org", "text": "Hi"}
    both = answer(call("send", MAIL), call("count", {"to": 3}), call("send", other))
    chat = mailing(agents, both, "Sent.", both, "Not sent.")
    asked = chat.streaming("Write to Bob and Eve")
    form = form_of(asked)
    assert form["node_title"] == "Allow 2 calls?"
    assert "bob@example.org" in form["form_content"]
    assert "eve@example.org" in form["form_content"]
    assert steps_of(asked)[1] == ("count", '{"to": 3}', "1 2 3")
    assert functions.SENT == []
    done = continued(chat, asked, "approve")
    assert sorted(functions.SENT) == ["bob@example.org", "eve@example.org"]
    assert results(agents, chat) == ["sent to bob@example.org", "1 2 3", "sent to eve@example.org"]
    again = chat.streaming("Once more", conversation_id=done.conversation_id)
    continued(chat, again, "reject")
    assert len(functions.SENT) == 2
    assert results(agents, chat)[-1] == "The user rejected this call."


def test_beside_a_question_the_approval_comes_first_and_nothing_is_lost(agents: Agents) -> None:
    question = call("ask_human", {"title": "Decide", "question": "Which city?"})
    chat = mailing(
        agents,
        answer(question, call("send", MAIL)),
        answer(question),
        "Rome then.",
        layers=[{"name": "ask_human", "type": "vendor.ask_human"}],
    )
    first = chat.streaming("Plan it")
    assert form_of(first)["node_title"] == "Allow send?"
    second = continued(chat, first, "approve")
    assert functions.SENT == ["bob@example.org"]
    assert "one question at a time" in results(agents, chat)[0]
    assert form_of(second)["node_title"] == "Decide"
    third = continued(chat, second, "submit")
    assert third.answer == "Rome then."
    assert functions.SENT == ["bob@example.org"]


def test_the_question_outlives_the_process(database_url: str, tmp_path: Path, provider: ModelServer) -> None:
    with agents_of(tmp_path, provider, database_url=database_url) as before:
        chat = mailing(before, answer(call("send", MAIL)), "Sent.")
        asked = chat.streaming("Write to Bob")
    assert functions.SENT == []
    with agents_of(tmp_path, provider, database_url=database_url) as after:
        with after.server.client(chat.user.removeprefix("user-")) as client:
            done = continued(Chat(client, chat.user), asked, "approve")
        assert done.answer == "Sent."
    assert functions.SENT == ["bob@example.org"]


def test_tools_of_servers_need_approval_by_their_own_names(agents: Agents, odd_server: Json) -> None:
    server = odd_server | {"prefix": "odd", "needs_approval": ["echo"]}
    chat = agents.app(
        answer(call("odd_pid"), call("odd_echo", {"text": "a"})), "Done.", tools={"mcp": {"odd": server}}
    )
    asked = chat.streaming("Do it")
    assert form_of(asked)["node_title"] == "Allow odd_echo?"
    assert continued(chat, asked, "approve").answer == "Done."
    assert results(agents, chat)[1] == "echo a"
