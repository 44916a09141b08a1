"""Bodies within the bound of bytes that would keep a process busy, and answers that would fill its memory."""

import json
from typing import Any

import pytest

from agent_gateway.routes.http.body_values import MAX_VALUES
from tests.support.chat import Chat, refused
from tests.support.fakes.script import script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer

EIGHT_MIB = 8 * 1024 * 1024


def sized(body: dict[str, Any], name: str, item: Any, room: int = 200) -> bytes:
    """A body whose `name` has as many of these items as go into 8 MiB."""
    count = (EIGHT_MIB - room) // (len(json.dumps(item)) + 1)
    return json.dumps({**body, name: [item] * count}, separators=(",", ":")).encode()


@pytest.mark.parametrize("path", ["/chat-messages", "/chat-messages/x/stop", "/messages/x/feedbacks"])
@pytest.mark.parametrize("item", [1, [], {}, "", {"a": 1}], ids=json.dumps)
def test_a_body_with_millions_of_values_is_refused(
    server: GatewayServer, path: str, item: Any, user: str
) -> None:
    """Parsed, cleaned and stored, one of them cost up to 3.5 s of the event loop."""
    body = sized({"query": "Hi", "user": user}, "unknown", item)
    with server.client() as client:
        told = refused(client.post(path, content=body), 400, "invalid_param")
    assert str(MAX_VALUES) in told["message"]


def test_the_largest_allowed_body_is_accepted(chat: Chat, fake: ScriptedBackend) -> None:
    """Commas and brackets within a text are no values."""
    fake.script = script(text("Well"), succeed())
    values = [0] * (MAX_VALUES - 20)
    assert chat.post("Hi", inputs={"values": values}).status_code == 200
    assert chat.post("Hi", inputs={"values": [*values, *range(20)]}).status_code == 400
    assert chat.post("[{,\\" * 60_000, inputs={"text": '","' * 60_000}).status_code == 200


@pytest.mark.parametrize(
    "file", [{}, 1, {"type": "image", "transfer_method": "remote_url", "url": "http://a/b"}]
)
def test_thousands_of_files_are_refused(chat: Chat, file: Any) -> None:
    """Listing each mistake of each file answered 8 MiB of empty files with 170 MB after 35 s."""
    for count in (101, 4_000):
        response = chat.post("Hi", files=[file] * count)
        assert refused(response, 400, "invalid_param")["message"] == "files: must be at most 100"


def test_only_the_first_of_many_errors_are_reported(chat: Chat) -> None:
    told = refused(chat.post("Hi", files=[{}] * 100), 400, "invalid_param")["message"]
    assert told.startswith("files.0.type: ")
    assert told.count("; ") == 20
    assert told.endswith(" more")


def test_a_feedback_text_beyond_the_limit_is_refused(chat: Chat) -> None:
    message_id = chat.blocking()["message_id"]
    for length, status in ((16_384, 200), (16_385, 400)):
        body = {"rating": "like", "user": chat.user, "content": "x" * length}
        assert chat.client.post(f"/messages/{message_id}/feedbacks", json=body).status_code == status


def test_a_list_of_large_messages_is_split_into_pages_by_size(chat: Chat) -> None:
    """Its inputs are shown with each message, as they always were; a page ends at about 4 MiB of that."""
    inputs = {"text": "x" * 1_500_000}
    conversation = chat.blocking("0", inputs=inputs)["conversation_id"]
    for number in range(1, 5):
        chat.blocking(str(number), conversation_id=conversation)
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        query = {"user": chat.user, "conversation_id": conversation, "limit": 100, **more}
        response = chat.client.get("/messages", params=query)
        assert len(response.content) < 4.5 * 1024 * 1024
        page = response.json()
        found = page["data"] + found
        if not page["has_more"]:
            break
        more = {"first_id": found[0]["id"]}
    assert [(message["query"], message["inputs"]) for message in found] == [
        (str(n), inputs) for n in range(5)
    ]
