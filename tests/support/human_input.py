"""Shared by tests of human input: runs that ask, and a front end's calls for a form."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import FormRow
from tests.support.chat import Chat, Heard, Stream
from tests.support.fakes.script import Script, ask_human, script
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.json_type import Json
from tests.support.rows import look

QUESTION = "May I go on?\n\n**Please decide.**"
SIZES = [{"value": "s", "label": "Small"}, {"value": "l", "label": "Large"}]
COMMENT: Json = {"name": "comment", "label": "Comment", "type": "paragraph", "default": "none"}
SIZE: Json = {"name": "size", "label": "Size", "required": True, "type": "select", "options": SIZES}


def asking(**more: Any) -> Script:
    """A run that says a word and asks."""
    fields: Json = {"fields": [COMMENT, SIZE], **more}
    return script(said("Well."), ask_human("May I go on?", **fields))


def asked(chat: Chat, fake: ScriptedBackend, query: str = "Do it", **more: Any) -> Heard:
    """A turn that ends with a question, streamed."""
    fake.queue(asking())
    return chat.streaming(query, **more)


def form_of(heard: Heard) -> Json:
    """The data of the form in a stream."""
    [event] = [event for event in heard.events if event["event"] == "human_input_required"]
    assert event["workflow_run_id"] == event["message_id"] == event["data"]["node_id"]
    data: Json = event["data"]
    return data


def token_of(heard: Heard) -> str:
    """The token that reads and submits the form of a stream."""
    return str(form_of(heard)["form_token"])


def read(chat: Chat, token: str) -> httpx.Response:
    return chat.client.get(f"/form/human_input/{token}")


def submit(chat: Chat, token: str, action: str = "approve", **values: Any) -> httpx.Response:
    body = {"inputs": values, "action": action, "user": chat.user}
    return chat.client.post(f"/form/human_input/{token}", json=body)


def submitted(chat: Chat, token: str, action: str = "approve", **values: Any) -> Json:
    """An accepted submission: names the turn that continues."""
    response = submit(chat, token, action, **(values or {"size": "s"}))
    assert response.status_code == 200, response.text
    body: Json = response.json()
    return body


def expire(url: str, heard: Heard, seconds: float = 0.0) -> None:
    """The form's time has come."""

    async def work(session: AsyncSession) -> None:
        row = update(FormRow).where(col(FormRow.turn_id) == heard.task_id)
        await session.execute(row.values(expires_at=now_plus(seconds)))

    look(url, work)


def extra(chat: Chat, heard: Heard) -> Json:
    """The question in the list of messages."""
    [message] = [
        message
        for message in chat.messages(heard.conversation_id)
        if message["id"] == heard.events[0]["message_id"]
    ]
    [content] = message["extra_contents"]
    data: Json = content
    return data


def told(fake: ScriptedBackend) -> Json:
    """The human's answer as the newest run got it."""
    calls: Json = fake.requests[-1].body["deferred_tool_results"]["calls"]
    assert list(calls) == ["call_ask_1"]
    answer: Json = calls["call_ask_1"]
    return answer


@contextmanager
def awaiting(chat: Chat, heard: Heard) -> Generator[Stream]:
    """The events of a question's answer, from before there is one."""
    path = f"/workflow/{heard.events[0]['message_id']}/events"
    with chat.client.stream("GET", path, params={"user": chat.user}) as response:
        assert response.status_code == 200, response.read()
        yield Stream(response)
