"""A question to a human: its form, the answer, and the turn that carries it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from agent_gateway.app_config import default_app
from tests.fakes.script import ask_human, script, succeed
from tests.fakes.script import text as said
from tests.fakes.scripted_backend import ScriptedBackend
from tests.fakes.session import history_of
from tests.gateway.chat import Chat, Heard, Json, refused
from tests.gateway.rows import add_app
from tests.gateway_server import GatewayServer, wait_until

QUESTION = "May I go on?\n\n**Please decide.**"
SIZE = {
    "name": "size",
    "label": "Size",
    "required": True,
    "type": "select",
    "options": [{"value": "s", "label": "Small"}, {"value": "l", "label": "Large"}],
}
COMMENT = {"name": "comment", "label": "Comment", "type": "paragraph", "default": "none"}


def asking(**more: Any) -> Any:
    """A run that says a word and asks."""
    given = {"fields": [COMMENT, SIZE], **more}
    return script(said("Well."), ask_human("May I go on?", **given))


def asked(chat: Chat, fake: ScriptedBackend, **more: Any) -> Heard:
    """A turn that ends with a question, streamed."""
    fake.queue(asking(**more))
    return chat.stream("Do it")


def form_of(heard: Heard) -> Json:
    """The data of the form in a stream."""
    [event] = [event for event in heard.events if event["event"] == "human_input_required"]
    assert event["workflow_run_id"] == event["message_id"] == event["data"]["node_id"]
    data: Json = event["data"]
    return data


def read(chat: Chat, token: str) -> httpx.Response:
    return chat.client.get(f"/form/human_input/{token}")


def submit(chat: Chat, token: str, action: str = "approve", **values: Any) -> httpx.Response:
    body = {"inputs": values, "action": action, "user": chat.user}
    return chat.client.post(f"/form/human_input/{token}", json=body)


def submitted(chat: Chat, token: str, action: str = "approve", **values: Any) -> Json:
    response = submit(chat, token, action, **values)
    assert response.status_code == 200, response.text
    body: Json = response.json()
    return body


def told(fake: ScriptedBackend) -> Json:
    """What the newest run was told of the human's answer."""
    calls: Json = fake.requests[-1].body["deferred_tool_results"]["calls"]
    assert list(calls) == ["call_ask_1"]
    answer: Json = calls["call_ask_1"]
    return answer


def test_a_question_ends_its_turn_with_a_form(chat: Chat, fake: ScriptedBackend) -> None:
    heard = asked(chat, fake)
    assert heard.kinds == ["message", "message", "human_input_required", "message_end"]
    assert heard.ids == [1, 2, 3, 5]  # 4 is the closing message's
    assert heard.answer == f"Well.\n\n{QUESTION}"
    form = form_of(heard)
    assert form["form_content"] == (
        f"{QUESTION}\n\nComment\n\n{{{{#$output.comment#}}}}\n\nSize\n\n{{{{#$output.size#}}}}"
    )
    assert [item["output_variable_name"] for item in form["inputs"]] == ["comment", "size"]
    assert [item["required"] for item in form["inputs"]] == [False, True]
    assert form["inputs"][1]["options"] == SIZE["options"]
    assert form["actions"] == [
        {"id": "approve", "title": "Approve", "button_style": "primary"},
        {"id": "reject", "title": "Reject", "button_style": "default"},
    ]
    assert form["resolved_default_values"] == {"comment": "none"}
    assert form["node_title"] == "Approval needed"
    assert 0 < form["expiration_time"] - time.time() < 3 * 86_400 + 10
    assert len(form["form_token"]) >= 40
    assert form["approval"] is None

    message = chat.message(heard.conversation_id)
    [extra] = message["extra_contents"]
    assert (extra["type"], extra["state"], extra["submitted"]) == ("human_input", "open", False)
    assert extra["form_definition"] == form
    assert extra["form_submission_data"] is None
    assert message["answer"] == heard.answer
