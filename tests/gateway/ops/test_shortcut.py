"""The shorter way to the busiest routes: nobody can tell it from the framework's own."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from agent_gateway.routes import chat_messages, turn_events
from tests.support.chat import Chat

LONG_WAY = "/chat-messages?ids=false"
"""A request with a query is not plain."""

ASKED: dict[str, Any] = {"query": "Hi", "user": "ann", "inputs": {}, "response_mode": "blocking"}


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (ASKED, {}),
        ({**ASKED, "inputs": None, "files": None, "auto_generate_name": "no"}, {}),
        ({**ASKED, "trace_id": "t-1", "unknown": [1]}, {"X-Trace-Id": "t-2"}),
        ({**ASKED, "query": "caf\u00e9 \U0001f600"}, {"Idempotency-Key": "k"}),
        ({**ASKED, "query": " "}, {}),
        ({**ASKED, "user": ""}, {}),
        ({**ASKED, "user": "a\0b"}, {}),
        ({**ASKED, "files": [{"type": "image"}]}, {}),
        ({**ASKED, "conversation_id": "no id"}, {}),
        ({**ASKED, "conversation_id": "01a22750-2d04-7235-ac01-cb66738fa7d3"}, {}),
        ({**ASKED, "response_mode": "loud"}, {}),
        (ASKED, {"Idempotency-Key": ""}),
        (ASKED, {"Idempotency-Key": "k" * 256}),
        (ASKED, {"Idempotency-Key": b"\xff"}),
        (ASKED, {"Last-Event-ID": "1"}),
        (ASKED, {"X-Trace-Id": "no id!"}),
        (ASKED, {"Authorization": ""}),
        (ASKED, {"Authorization": "Basic app-x"}),
        (ASKED, {"Authorization": "Bearer app-nobody"}),
        (ASKED, {"Content-Type": "multipart/form-data; boundary=x"}),
        ({**ASKED, "inputs": {"many": [[]] * 20_001}}, {}),
        ({**ASKED, "inputs": {"many": [[]] * 20_001}}, {"Content-Type": "multipart/x"}),
        (ASKED, {"Content-Type": "text/plain"}),
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b'{"query": "\xff", "user": "ann"}', {}),
        (b'{"query": "\\ud83d", "user": "ann"}', {}),
        (b'{"query": "Hi", "user": "ann", "inputs": {"n": NaN}}', {}),
        (b'{"query": "Hi", "user": "ann", "inputs": {"n": ' + b"9" * 5000 + b"}}", {}),
        (b'{"query": "Hi", "user": "ann", "inputs": ' + b"[" * 300 + b"]" * 300 + b"}", {}),
    ],
)
def test_both_ways_give_the_same_response(
    chat: Chat, content: dict[str, Any] | bytes, headers: dict[str, Any]
) -> None:
    responses = []
    for number, url in enumerate(("/chat-messages", LONG_WAY, "/v1/chat-messages")):
        own = dict(headers)
        if own.get("Idempotency-Key") == "k":
            own["Idempotency-Key"] = f"{chat.user} {number}"
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        responses.append(_comparable(chat.client.post(url, headers=own, content=body)))
    assert responses[0] == responses[1] == responses[2]


def test_a_plain_message_takes_the_short_way(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework resolves none of its parameters."""
    asked = []
    real = chat_messages.read_plain_message

    async def reads(*arguments: Any) -> Any:
        asked.append(read := await real(*arguments))
        return read

    monkeypatch.setattr(chat_messages, "read_plain_message", reads)
    headers = {"Idempotency-Key": chat.user, "X-Request-Id": "r", "X-Trace-Id": "t"}
    assert chat.client.post("/chat-messages", json=ASKED, headers=headers).status_code == 200
    assert len(asked) == 1
    assert asked[0] is not None


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("ticket={ticket}", {}),
        ("ticket={ticket}&after=3", {}),
        ("after=007&ticket={ticket}", {}),
        ("ticket={ticket}&after=0", {"Last-Event-ID": "2"}),
        ("ticket={ticket}", {"Last-Event-ID": "2"}),
        ("ticket={ticket}", {"Last-Event-ID": ""}),
        ("ticket={ticket}", {"Last-Event-ID": "two"}),
        ("ticket={ticket}", {"Last-Event-ID": "1" * 13}),
        ("ticket={ticket}", {"Last-Event-ID": b"\xff"}),
        ("ticket={ticket}&after=99", {}),
        ("ticket={ticket}&after=-1", {}),
        ("ticket={ticket}&after=", {}),
        ("ticket={ticket}&after=1&after=2", {}),
        ("ticket={ticket}&after=%31", {}),
        ("ticket={ticket}&mode=agent", {}),
        ("ticket={ticket}&ticket=x", {}),
        ("ticket={ticket}x", {}),
        ("ticket=x", {}),
        ("ticket=", {}),
        ("", {}),
        ("user=x", {}),
        ("ticket={ticket}", {"Authorization": "Bearer app-nobody"}),
    ],
)
@pytest.mark.parametrize("task", ["its own", "in capitals", "another"])
def test_both_ways_read_the_same_events(chat: Chat, query: str, headers: dict[str, Any], task: str) -> None:
    stream = chat.streaming("Hi there you")
    path = urlsplit(stream.headers["X-Turn-Events-URL"])
    task_id = {"in capitals": stream.task_id.upper(), "another": str(uuid4())}.get(task, stream.task_id)
    asked = query.format(ticket=parse_qs(path.query)["ticket"][0])
    sent = {"Authorization": "", **headers}
    heard = []
    for base, more in (("", ""), ("", "unknown=1&"), ("/v1", "")):
        response = chat.client.get(f"{base}/chat-messages/{task_id}/events?{more}{asked}", headers=sent)
        body = re.sub(rb"retry: \d+", b"retry", response.content)
        heard.append((response.status_code, sorted(set(response.headers) - {"date"}), body))
    assert heard[0] == heard[1] == heard[2]


def test_event_source_takes_the_short_way(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = turn_events.read_plain_reading

    async def reads(*arguments: Any) -> Any:
        asked.append(read := await real(*arguments))
        return read

    monkeypatch.setattr(turn_events, "read_plain_reading", reads)
    url = chat.streaming("Hi").headers["X-Turn-Events-URL"]
    assert chat.client.get(url, headers={"Last-Event-ID": "1"}).status_code == 200
    assert len(asked) == 1
    assert asked[0] is not None


def _comparable(response: httpx.Response) -> tuple[int, list[str], Any]:
    """Without what differs from turn to turn."""
    body: Any = response.json()
    for name in ("id", "message_id", "task_id", "conversation_id", "created_at", "metadata"):
        body.pop(name, None)
    return response.status_code, sorted(set(response.headers) - {"date"}), body
