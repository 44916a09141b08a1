"""GET /conversations and GET /messages: pages, order, and what a message remembers."""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.store.db.tables import ConversationRow
from tests.support.chat import Chat, refused
from tests.support.fakes.script import (
    ABSENT,
    Gate,
    fail,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, StartGateway
from tests.support.rows import look

MESSAGE_FIELDS = {
    "id",
    "conversation_id",
    "parent_message_id",
    "inputs",
    "query",
    "answer",
    "status",
    "error",
    "message_files",
    "feedback",
    "retriever_resources",
    "metadata",
    "agent_thoughts",
    "created_at",
    "extra_contents",
    "message_tokens",
    "answer_tokens",
    "total_tokens",
    "provider_response_latency",
    "total_price",
    "currency",
    "task_id",
    "events_url",
}


def names(page: dict[str, Any]) -> list[str]:
    return [item["name"] for item in page["data"]]


def test_a_listed_conversation_has_all_its_fields(chat: Chat) -> None:
    assert chat.conversations() == {"limit": 20, "has_more": False, "data": []}
    inputs = {"a": 1, "b": [None, "ü"]}
    answered = chat.blocking("  My first\nquestion ", inputs=inputs)
    page = chat.conversations()
    [item] = page.pop("data")
    assert page == {"limit": 20, "has_more": False}
    assert abs(time.time() - item["created_at"]) < 30
    assert item == {
        "id": answered["conversation_id"],
        "name": "My first question",
        "inputs": inputs,
        "status": "normal",
        "introduction": chat.client.get("/parameters").json()["opening_statement"],
        "created_at": answered["created_at"],
        "updated_at": item["updated_at"],
    }
    assert isinstance(item["updated_at"], int)
    assert item["updated_at"] >= item["created_at"]


def test_conversations_are_listed_in_the_requested_order(chat: Chat) -> None:
    ids = [chat.blocking(name)["conversation_id"] for name in "abcd"]
    chat.blocking("again", conversation_id=ids[1])
    assert names(chat.conversations()) == ["b", "d", "c", "a"], "the last active one first"
    assert names(chat.conversations(sort_by="-updated_at")) == ["b", "d", "c", "a"]
    assert names(chat.conversations(sort_by="updated_at")) == ["a", "c", "d", "b"]
    assert names(chat.conversations(sort_by="created_at")) == ["a", "b", "c", "d"]
    assert names(chat.conversations(sort_by="-created_at")) == ["d", "c", "b", "a"]


@pytest.mark.parametrize("sort_by", ["created_at", "-created_at", "updated_at", "-updated_at"])
def test_conversations_are_listed_page_by_page(chat: Chat, sort_by: str) -> None:
    ids = [chat.blocking(name)["conversation_id"] for name in "abcde"]
    chat.blocking("again", conversation_id=ids[2])
    whole = chat.conversations(sort_by=sort_by)["data"]
    found: list[Any] = []
    sizes = []
    while True:
        last = {"last_id": found[-1]["id"]} if found else {}
        page = chat.conversations(sort_by=sort_by, limit=2, **last)
        assert page["limit"] == 2
        found += page["data"]
        sizes.append(len(page["data"]))
        if not page["has_more"]:
            break
    assert found == whole
    assert sizes == [2, 2, 1]
    assert chat.conversations(sort_by=sort_by, last_id=found[-1]["id"])["data"] == []


@pytest.mark.parametrize("field", ["created_at", "updated_at"])
def test_conversations_with_equal_times_are_not_lost_between_pages(
    server: GatewayServer, chat: Chat, field: str
) -> None:
    ids = [chat.blocking(name)["conversation_id"] for name in "abcde"]

    async def at_once(session: AsyncSession) -> None:
        moment = datetime(2026, 1, 1, 12, 30, 0, 123457, UTC)
        rows = update(ConversationRow).where(col(ConversationRow.id).in_(ids[1:]))
        await session.execute(rows.values(created_at=moment, updated_at=moment))

    look(server.settings.resolved_database_url(), at_once)
    found: dict[str, list[str]] = {}
    for sort_by in (field, f"-{field}"):
        pages: list[str] = []
        while len(pages) < 10:
            last = {"last_id": pages[-1]} if pages else {}
            page = chat.conversations(sort_by=sort_by, limit=2, **last)
            pages += [item["id"] for item in page["data"]]
            if not page["has_more"]:
                break
        found[sort_by] = pages
    assert sorted(found[field]) == sorted(ids)
    assert found[f"-{field}"] == found[field][::-1]


def test_an_empty_cursor_lists_from_the_start(chat: Chat) -> None:
    answered = chat.blocking()
    assert chat.conversations(last_id="") == chat.conversations()
    assert len(chat.conversations(last_id="")["data"]) == 1
    [message] = chat.messages(answered["conversation_id"], first_id="")
    assert message["id"] == answered["message_id"]
    assert chat.messages(answered["conversation_id"].upper(), limit=100) == [message]
    assert chat.conversations(last_id=answered["conversation_id"].upper())["data"] == []


def test_a_list_shows_only_what_belongs_to_its_user(chat: Chat) -> None:
    """And an absent user is DEFAULT-USER, not everybody."""
    mine = chat.blocking("Hi")
    other = Chat(chat.client, f"{chat.user}-2")
    default = Chat(chat.client, "DEFAULT-USER")
    default_ids = [item["id"] for item in default.conversations()["data"]]
    assert other.conversations()["data"] == []
    assert mine["conversation_id"] not in default_ids
    theirs = default.blocking("Hi")["conversation_id"]
    assert theirs in [item["id"] for item in chat.client.get("/conversations").json()["data"]]
    shown = chat.client.get("/messages", params={"conversation_id": theirs})
    assert len(shown.json()["data"]) == 1
    params = {"conversation_id": mine["conversation_id"]}
    refused(chat.client.get("/messages", params=params), 404, "not_found")
    refused(chat.client.get("/messages", params={**params, "user": other.user}), 404, "not_found")


@pytest.mark.parametrize(
    ("params", "status", "code", "named"),
    [
        ({"limit": 0}, 400, "invalid_param", "limit"),
        ({"limit": 101}, 400, "invalid_param", "limit"),
        ({"limit": "many"}, 400, "invalid_param", "limit"),
        ({"sort_by": "name"}, 400, "invalid_param", "sort_by"),
        ({"last_id": "nonsense"}, 400, "invalid_param", "last_id"),
        ({"last_id": str(uuid4())}, 404, "not_found", ""),
        ({"user": "  "}, 400, "invalid_param", "user"),
    ],
)
def test_wrong_parameters_for_conversations_are_refused(
    chat: Chat, params: dict[str, Any], status: int, code: str, named: str
) -> None:
    response = chat.client.get("/conversations", params={"user": chat.user, **params})
    assert named in refused(response, status, code)["message"]


@pytest.mark.parametrize(
    ("params", "status", "code", "named"),
    [
        ({"conversation_id": None}, 400, "invalid_param", "conversation_id"),
        ({"conversation_id": ""}, 400, "invalid_param", "conversation_id"),
        ({"conversation_id": "nonsense"}, 400, "invalid_param", "conversation_id"),
        ({"conversation_id": str(uuid4())}, 404, "not_found", ""),
        ({"limit": 0}, 400, "invalid_param", "limit"),
        ({"limit": 101}, 400, "invalid_param", "limit"),
        ({"first_id": "nonsense"}, 400, "invalid_param", "first_id"),
        ({"first_id": str(uuid4())}, 404, "not_found", ""),
    ],
)
def test_wrong_parameters_for_messages_are_refused(
    chat: Chat, params: dict[str, Any], status: int, code: str, named: str
) -> None:
    given = {"user": chat.user, "conversation_id": chat.blocking()["conversation_id"], **params}
    asked = {name: value for name, value in given.items() if value is not None}
    assert named in refused(chat.client.get("/messages", params=asked), status, code)["message"]


def test_a_message_of_another_conversation_is_refused_as_cursor(chat: Chat) -> None:
    first, second = chat.blocking(), chat.blocking()
    response = chat.client.get(
        "/messages",
        params={
            "user": chat.user,
            "conversation_id": first["conversation_id"],
            "first_id": second["message_id"],
        },
    )
    refused(response, 404, "not_found")


def test_messages_are_listed_page_by_page(chat: Chat) -> None:
    """The newest page first; within each, oldest first."""
    conversation_id = chat.blocking("0")["conversation_id"]
    for number in range(1, 5):
        chat.blocking(str(number), conversation_id=conversation_id)
    assert [message["query"] for message in chat.messages(conversation_id)] == list("01234")

    params = {"user": chat.user, "conversation_id": conversation_id, "limit": 2}
    pages = []
    first_id: dict[str, str] = {}
    for _ in range(3):
        page = chat.client.get("/messages", params={**params, **first_id}).json()
        assert page["limit"] == 2
        pages.append(([message["query"] for message in page["data"]], page["has_more"]))
        first_id = {"first_id": page["data"][0]["id"]}
    assert pages == [(["3", "4"], True), (["1", "2"], True), (["0"], False)]
    page = chat.client.get("/messages", params={**params, **first_id}).json()
    assert page == {"limit": 2, "has_more": False, "data": []}


def test_a_listed_message_has_all_its_fields(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(
        thinking("I should ", "look it up."),
        tool_call("1", "search", {"q": "x"}),
        tool_result("1", "search", {"found": 3}),
        text("Three ", "hits."),
        succeed(usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "latency": 1.25}),
    )
    heard = chat.streaming("How many?", inputs={"a": 1}, params={"mode": "agent-chat"})
    message = chat.message(heard.conversation_id)
    assert message.keys() == MESSAGE_FIELDS
    thoughts = message.pop("agent_thoughts")
    assert message.pop("metadata") == heard.last["metadata"]
    assert message == {
        "id": heard.last["message_id"],
        "conversation_id": heard.conversation_id,
        "parent_message_id": None,
        "inputs": {"a": 1},
        "query": "How many?",
        "answer": "Three hits.",
        "status": "normal",
        "error": None,
        "message_files": [],
        "feedback": None,
        "retriever_resources": [],
        "created_at": heard.last["created_at"],
        "extra_contents": [],
        "message_tokens": 7,
        "answer_tokens": 5,
        "total_tokens": 12,
        "provider_response_latency": 1.25,
        "total_price": "0",
        "currency": "USD",
        "task_id": None,
        "events_url": None,
    }
    # The thoughts are those of the stream, as it told them last.
    told = {event["id"]: event for event in heard.events if event["event"] == "agent_thought"}
    assert [item["id"] for item in thoughts] == list(told)
    for item in thoughts:
        for name in ("position", "thought", "tool", "tool_labels", "tool_input", "observation", "created_at"):
            assert item[name] == told[item["id"]][name]
        assert (item["message_id"], item["chain_id"], item["files"]) == (message["id"], None, [])
        assert UUID(item["id"])
    assert [item["position"] for item in thoughts] == [1, 2]


def test_a_message_without_usage_is_listed(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(text("Hi"), succeed(usage=ABSENT))
    message = chat.message(chat.blocking()["conversation_id"])
    assert (message["total_tokens"], message["total_price"], message["currency"]) == (0, "0", "USD")


def test_a_failed_message_is_listed_with_its_error(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(text("So far"), fail("InvokeRateLimitError", "key sk-secret exhausted"))
    heard = chat.streaming()
    message = chat.message(heard.conversation_id)
    assert (message["answer"], message["status"]) == ("So far", "error")
    assert message["error"] == heard.last["message"]
    assert "sk-secret" not in message["error"]


def test_a_message_is_listed_while_its_turn_runs(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("One"), gate, succeed()))
    with chat.open("Count") as stream:
        begun = stream.next()
        conversation_id = begun["conversation_id"]
        message = chat.message(conversation_id)
        # Whoever lists it can follow its turn.
        assert message["task_id"] == begun["task_id"]
        gate.open()
        followed = httpx.get(f"{chat.client.base_url}{message['events_url']}", trust_env=False)
        assert "message_end" in followed.text
        assert (message["query"], message["status"], message["error"]) == ("Count", "normal", None)
        assert names(chat.conversations()) == ["Count"]
        gate.open()
        stream.rest()
    assert chat.message(conversation_id)["answer"] == "One"


def test_a_stopped_message_and_a_queued_one_are_listed(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(text("So far"), gate, succeed()))
    with chat.open("First") as stream:
        conversation_id = stream.next()["conversation_id"]
        waiting = chat.background("Second", conversation_id=conversation_id)
        shown = [
            (item["query"], item["answer"], item["status"], item["error"], item["total_tokens"])
            for item in chat.messages(conversation_id)
        ]
        assert shown[1] == ("Second", "", "normal", None, 0)
        chat.stop(stream.task_id)
        stream.rest()
    chat.resumed(waiting["task_id"])
    first, second = chat.messages(conversation_id)
    assert (first["answer"], first["status"], first["error"]) == ("So far", "normal", None)
    assert (second["answer"], second["status"]) == ("You said: Second.", "normal")
    assert second["id"] == waiting["message_id"]


def test_a_long_first_query_is_cut_to_a_name(chat: Chat) -> None:
    chat.blocking("word " * 50)
    [name] = names(chat.conversations())
    assert 10 < len(name) <= 64
    assert name.startswith("word word")


def test_lists_are_the_same_after_a_restart(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    server = start_gateway()
    with server.client() as client:
        chat = Chat(client, user)
        conversation_id = chat.blocking("Hi")["conversation_id"]
        chat.blocking("Again", conversation_id=conversation_id)
        before = chat.conversations(), chat.messages(conversation_id)
    server.stop()
    with start_gateway().client() as client:
        chat = Chat(client, user)
        assert (chat.conversations(), chat.messages(conversation_id)) == before
