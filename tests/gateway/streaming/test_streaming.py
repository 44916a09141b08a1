"""The wire of a streamed turn: framing, events, pings, app modes, and text of every kind."""

import json
import socket
import time
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest

from agent_gateway.settings import Settings
from tests.support.chat import PING, Chat, Heard
from tests.support.fakes.script import (
    ABSENT,
    Emit,
    Gate,
    Step,
    fail,
    final_output,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.gateway_server import API_KEY, BOUND, GatewayServer, StartGateway

USAGE_ZEROS = {
    "prompt_tokens": 0,
    "prompt_unit_price": "0",
    "prompt_price_unit": "0",
    "prompt_price": "0",
    "completion_tokens": 0,
    "completion_unit_price": "0",
    "completion_price_unit": "0",
    "completion_price": "0",
    "total_tokens": 0,
    "total_price": "0",
    "currency": "USD",
    "latency": 0.0,
    "time_to_first_token": 0.0,
    "time_to_generate": 0.0,
}
COMMON = {"event", "conversation_id", "message_id", "created_at", "task_id", "event_id"}
FIELDS = {
    "message": {"id", "answer", "from_variable_selector"},
    "agent_message": {"id", "answer"},
    "agent_thought": {
        "id",
        "position",
        "thought",
        "tool",
        "tool_labels",
        "tool_input",
        "observation",
        "message_files",
    },
    "message_file": {"id", "type", "belongs_to", "url"},
    "message_end": {"id", "metadata", "files"},
    "error": {"status", "code", "message"},
}
"""Per event, what it has beyond COMMON."""


def steps_and_text() -> list[Step]:
    return [
        *thinking(
            "The user wants to know the weather, ", "so I ask the service. ", "It may be raining. " * 4
        ),
        *text("Let me look. "),
        *tool_call("call_1", "weather", {"city": "Oslo"}),
        *tool_result("call_1", "weather", {"sky": "clear", "degrees": 21}),
        *text("It is ", "sunny", "."),
    ]


def on_the_wire(
    server: GatewayServer, body: dict[str, Any], path: str = "/chat-messages"
) -> tuple[str, list[bytes]]:
    """Head and chunks of a response, as they come out of the socket."""
    content = json.dumps(body).encode()
    address = urlsplit(server.url)
    request = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=BOUND) as connection:
        connection.sendall(request.encode() + content)
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, rest = raw.partition(b"\r\n\r\n")
    chunks = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return head.decode(), chunks
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]


def test_a_stream_is_byte_for_byte_as_specified(
    server: GatewayServer, fake: ScriptedBackend, user: str
) -> None:
    fake.script = script(text("Grüße, ", "Welt ", "🌍"), succeed())
    body = {"query": "Hi", "user": user, "response_mode": "streaming"}
    head, chunks = on_the_wire(server, body)

    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert UUID(headers["x-task-id"])
    assert all(chunk.endswith(b"\n\n") for chunk in chunks), "a write ended in the middle of an event"

    raw = b"".join(chunks)
    assert raw.isascii()
    assert b"\r" not in raw
    blocks = [block for block in raw.removesuffix(b"\n\n").split(b"\n\n") if block != PING]
    assert all(block.startswith(b'data: {"') and b"\n" not in block for block in blocks)
    heard = Heard(raw, httpx.Headers())
    message_id, conversation_id = heard.last["message_id"], heard.conversation_id
    common = {
        "conversation_id": conversation_id,
        "message_id": message_id,
        "created_at": heard.last["created_at"],
        "task_id": headers["x-task-id"],
    }
    chunk = {"event": "message", "id": message_id, "from_variable_selector": None, **common}
    usage = heard.last["metadata"]["usage"]
    assert heard.events == [
        {**chunk, "answer": "Grüße, ", "event_id": 1},
        {**chunk, "answer": "Welt ", "event_id": 2},
        {**chunk, "answer": "🌍", "event_id": 3},
        {
            "event": "message_end",
            "id": message_id,
            **common,
            "event_id": 5,
            "metadata": {"usage": usage, "retriever_resources": [], "finish_reason": None},
            "files": [],
        },
    ]
    assert usage == {
        **USAGE_ZEROS,
        "prompt_tokens": 1,
        "prompt_unit_price": "0.001",
        "prompt_price_unit": "0.001",
        "prompt_price": "0.0000010",
        "completion_tokens": 3,
        "completion_unit_price": "0.002",
        "completion_price_unit": "0.001",
        "completion_price": "0.0000060",
        "total_tokens": 4,
        "total_price": "0.0000070",
        "latency": 0.086,
        "time_to_first_token": 0.01,
        "time_to_generate": 0.086,
    }
    assert abs(time.time() - common["created_at"]) < 30
    assert isinstance(common["created_at"], int)
    assert UUID(message_id)
    assert UUID(conversation_id)


def test_a_post_stream_has_ids_only_when_asked(chat: Chat) -> None:
    plain, numbered = chat.streaming("Hi"), chat.streaming("Hi", params={"ids": "1"})

    assert not any(line.startswith((b"id:", b"retry:", b":")) for line in plain.raw.split(b"\n"))
    assert numbered.blocks[0].startswith(b"retry: ")
    assert numbered.blocks[0].removeprefix(b"retry: ").isdigit()
    for frame, event in zip(numbered.frames, numbered.events, strict=True):
        data, number = frame.split(b"\n")
        assert data.startswith(b"data: {")
        # Last, for readers that take an event as seen as soon as they have its id.
        assert number == b"id: %d" % event["event_id"]
    assert b"\nevent: message" not in numbered.raw
    assert b"[DONE]" not in plain.raw + numbered.raw


def test_pings_come_before_the_answer_of_a_silent_backend(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    """Only pings until the backend speaks; none after the end."""
    fake.script = script(gate, text("Late"), succeed())
    with chat.open() as stream:
        silent = [stream.block() for _ in range(3)]
        gate.open()
        heard = stream.rest()
    assert silent == [PING] * 3
    first = heard.blocks.index(heard.frames[0])
    assert set(heard.blocks[:first]) == {PING}
    assert heard.kinds == ["message", "message_end"]
    assert heard.blocks[-1] == heard.frames[-1], "nothing follows the end"
    assert Settings.model_fields["ping_seconds"].default == 3.0, "what clients are promised"


def test_the_first_ping_comes_before_the_ping_interval(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """It is the first byte of a silent stream, and says after a second that all is well."""
    fake.script = script(gate, text("Late"), succeed())
    # Longer than any wait here.
    server = start_gateway(ping_seconds=60.0)
    with server.client() as client, Chat(client, user).open() as stream:
        assert stream.block() == PING
        gate.open()
        assert stream.rest().answer == "Late"


def test_pings_in_the_middle_of_an_answer(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.script = script(text("Early "), gate, text("late"), succeed())
    with chat.open() as stream:
        assert stream.next()["answer"] == "Early "
        assert stream.block() == PING
        gate.open()
        assert stream.rest().answer == "Early late"


@pytest.mark.parametrize("mode", ["chat", "agent-chat", "agent"])
def test_every_event_has_its_fields(chat: Chat, fake: ScriptedBackend, mode: str) -> None:
    fake.script = script(steps_and_text(), succeed())
    heard = chat.streaming(params={"mode": mode})

    for event in heard.events:
        assert event.keys() == COMMON | FIELDS[event["event"]]
        assert None not in [value for name, value in event.items() if name != "from_variable_selector"]
    assert (
        len({(event["conversation_id"], event["message_id"], event["task_id"]) for event in heard.events})
        == 1
    )
    assert heard.ids == sorted(set(heard.ids)), "positions grow"
    assert heard.last["metadata"]["usage"].keys() == USAGE_ZEROS.keys()


def test_an_error_event_has_its_fields(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(text("So far "), fail("InvokeRateLimitError", "sk-secret"))
    heard = chat.streaming()

    assert heard.kinds == ["message", "error"]
    assert heard.last.keys() == COMMON | FIELDS["error"]
    assert (heard.last["status"], heard.last["code"]) == (429, "rate_limit_error")
    assert b"sk-secret" not in heard.raw


def test_each_app_mode_has_its_own_answer_events(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(steps_and_text(), succeed())
    plain = chat.streaming()
    agent_chat = chat.streaming(params={"mode": "agent-chat"})
    agent = chat.streaming(params={"mode": "agent"})

    said = ["Let me look. ", "It is ", "sunny", "."]
    assert [event["answer"] for event in plain.events[:-1]] == said
    assert plain.kinds == ["message"] * 4 + ["message_end"]
    assert [event["answer"] for event in agent_chat.events if event["event"] == "agent_message"] == said
    assert set(agent_chat.kinds) == {"agent_message", "agent_thought", "message_end"}
    assert agent.kinds == [*agent_chat.kinds[:-1], "message", "message_end"]
    assert agent.events[-2]["answer"] == "".join(said)
    # The same positions in every mode: some are just not shown.
    shown = [event["event_id"] for event in agent_chat.events if event["event"] != "agent_thought"]
    assert plain.ids == shown
    assert agent_chat.ids == [*agent.ids[:-2], agent.ids[-1]]


def test_a_thought_grows_under_one_id(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(steps_and_text(), succeed())
    heard = chat.streaming(params={"mode": "agent-chat"})

    told = [event for event in heard.events if event["event"] == "agent_thought"]
    reasoning = [event for event in told if event["position"] == 1]
    tool = [event for event in told if event["position"] == 2]
    assert reasoning + tool == told
    assert len({event["id"] for event in reasoning}) == len({event["id"] for event in tool}) == 1
    thoughts = [event["thought"] for event in reasoning]
    assert len(thoughts) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(thoughts))
    assert thoughts[-1].endswith("It may be raining. " * 4)
    assert [event["tool"] for event in tool] == ["weather", "weather"]
    assert [json.loads(event["tool_input"]) for event in tool] == [{"city": "Oslo"}] * 2
    assert [event["observation"] for event in tool] == ["", '{"sky":"clear","degrees":21}']


def test_the_app_decides_the_stream_mode(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    fake.script = script(steps_and_text(), succeed())
    with start_gateway(app_mode="agent").client() as client:
        chat = Chat(client, user)
        assert client.get("/info").json()["mode"] == "agent"
        heard = chat.streaming()
        assert heard.kinds[-2:] == ["message", "message_end"]
        assert heard.kinds[0] == "agent_thought"
        assert set(chat.streaming(params={"mode": "chat"}).kinds) == {"message", "message_end"}
        assert chat.blocking()["mode"] == "chat"


def test_usage_is_complete_when_the_backend_gave_none(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(text("Hi"), succeed(usage=ABSENT))
    assert chat.streaming().last["metadata"]["usage"] == USAGE_ZEROS
    assert chat.blocking()["metadata"] == {
        "usage": USAGE_ZEROS,
        "retriever_resources": [],
        "finish_reason": None,
    }


@pytest.mark.parametrize(
    "said",
    [
        "👩‍👩‍👧 emoji",
        "line\u2028and\u2029paragraph",
        "carriage\rreturn\nand\x85next",
        "𝔘nicode \u202e rtl",
        '"\\/ \x1f',
    ],
    ids=["emoji", "separators", "newlines", "astral", "escapes"],
)
def test_text_of_every_kind_is_streamed_unchanged(chat: Chat, fake: ScriptedBackend, said: str) -> None:
    fake.script = script(text(said, said), succeed())
    heard = chat.streaming(said)

    assert heard.raw.isascii()
    assert heard.answer == said * 2
    assert query_of(fake.requests[0].body) == said
    stored = chat.message(heard.conversation_id)
    assert (stored["query"], stored["answer"]) == (said, said * 2)


def test_characters_a_database_rejects_are_replaced(chat: Chat, fake: ScriptedBackend) -> None:
    """NUL and lone surrogates become U+FFFD, in the query, in inputs, and in what the run says."""
    bad, good = "a\x00b\ud83dc", "a\ufffdb\ufffdc"
    fake.script = script(
        thinking(bad),
        tool_call("1", f"tool{bad}", {"key": bad}),
        tool_result("1", f"tool{bad}", [bad]),
        text(bad, bad),
        succeed(),
    )
    body = {"query": bad, "inputs": {f"k{bad}": bad}, "user": chat.user, "response_mode": "streaming"}
    response = chat.client.post(
        "/chat-messages?mode=agent-chat",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    heard = Heard(response.content, response.headers)

    assert heard.answer == good * 2
    assert query_of(fake.requests[0].body) == good
    stored = chat.message(heard.conversation_id)
    assert (stored["query"], stored["answer"]) == (good, good * 2)
    assert stored["inputs"] == {f"k{good}": good}
    assert [thought["thought"] for thought in stored["agent_thoughts"]] == [good, ""]
    assert stored["agent_thoughts"][1]["tool"] == f"tool{good}"
    assert chat.conversations()["data"][0]["name"] == good


def test_an_emoji_cut_in_two_chunks_is_joined(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(text("half \ud83d", "\ude00 done"), succeed(output="x"))
    heard = chat.streaming()
    assert [(event["event_id"], event.get("answer")) for event in heard.events[:-1]] == [
        (1, "half "),
        (2, "\U0001f600 done"),
    ]
    assert chat.message(heard.conversation_id)["answer"] == "half \U0001f600 done"
    for cursor in (0, 1, 2):
        assert chat.resumed(heard.task_id, after=cursor).ids == heard.ids[cursor:]


def test_structured_output_is_one_chunk_of_json(chat: Chat, fake: ScriptedBackend) -> None:
    result = {"city": "Oslo", "degrees": 21.5, "tags": ["sunny", "grün"]}
    fake.script = script(final_output(result), succeed(output=result))
    heard = chat.streaming(params={"mode": "agent-chat"})

    assert heard.kinds == ["agent_message", "message_end"], "the output tool is not shown"
    assert json.loads(heard.answer) == result
    assert chat.message(heard.conversation_id)["answer"] == heard.answer
    assert json.loads(chat.blocking()["answer"]) == result


def test_a_text_output_that_was_not_streamed_is_sent_at_the_end(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(succeed(output="All at once"))
    heard = chat.streaming()
    assert heard.kinds == ["message", "message_end"]
    assert heard.answer == "All at once"


@pytest.mark.parametrize(
    "ending",
    [
        succeed(output=None),
        succeed(output=""),
        Emit("run_succeeded", {}),
        Emit("run_succeeded", {"usage": 7}),
    ],
    ids=["null", "empty", "nothing", "odd"],
)
def test_an_empty_answer_ends_with_message_end(chat: Chat, fake: ScriptedBackend, ending: Step) -> None:
    fake.script = script(ending)
    heard = chat.streaming()
    assert heard.kinds == ["message_end"]
    assert chat.message(heard.conversation_id)["answer"] == ""
    assert chat.blocking()["answer"] == ""


def test_text_before_a_tool_call_belongs_to_the_answer(chat: Chat, fake: ScriptedBackend) -> None:
    """The run's `output` is only its last round; the answer is all that was streamed."""
    fake.script = script(steps_and_text(), succeed())
    heard = chat.streaming()
    assert heard.answer == "Let me look. It is sunny."
    assert chat.message(heard.conversation_id)["answer"] == heard.answer
    assert chat.blocking()["answer"] == heard.answer


def test_long_text_becomes_several_lines(chat: Chat, fake: ScriptedBackend) -> None:
    long = "ab☃" * 100_000
    fake.script = script(text(long), succeed())
    heard = chat.streaming(params={"mode": "agent"})
    lines = heard.raw.split(b"\n")
    assert max(map(len, lines)) < 512 * 1024
    chunks = [event["answer"] for event in heard.events if event["event"] == "agent_message"]
    closing = [event["answer"] for event in heard.events if event["event"] == "message"]
    assert "".join(chunks) == "".join(closing) == long
