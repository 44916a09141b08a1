"""Ratings of answers: given, changed, taken back, and listed for the app."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, fail, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.rows import add_app

DONE = {"result": "success"}


def rate(chat: Chat, message_id: str, **body: Any) -> httpx.Response:
    return chat.client.post(f"/messages/{message_id}/feedbacks", json={"user": chat.user, **body})


def shown(chat: Chat, conversation_id: str) -> Any:
    return chat.message(conversation_id)["feedback"]


@pytest.fixture
def own(server: GatewayServer, user: str) -> Any:
    """A user of an app of this test's own: `/app/feedbacks` is about all users of an app."""
    add_app(server.settings.resolved_database_url(), key := f"app-rated-{user}")
    with server.client(key) as client:
        yield Chat(client, user)


def test_a_rating_is_shown_until_it_is_taken_back(chat: Chat) -> None:
    answered = chat.blocking()
    message_id, conversation_id = answered["message_id"], answered["conversation_id"]
    assert shown(chat, conversation_id) is None
    for rating in ("like", "like", "dislike"):
        assert rate(chat, message_id, rating=rating).json() == DONE
        assert shown(chat, conversation_id) == {"rating": rating}
    assert rate(chat, message_id, rating=None, content=None).json() == DONE
    assert shown(chat, conversation_id) is None
    assert rate(chat, message_id, rating=None).json() == DONE, "again: nothing to take back"
    assert rate(chat, message_id.upper(), rating="like").json() == DONE
    assert rate(chat, message_id).json() == DONE, "absent is null"
    assert shown(chat, conversation_id) is None


def test_each_message_has_its_own_rating(chat: Chat) -> None:
    first = chat.blocking("a")
    second = chat.blocking("b", conversation_id=first["conversation_id"])
    rate(chat, first["message_id"], rating="dislike")
    ratings = [message["feedback"] for message in chat.messages(first["conversation_id"])]
    assert ratings == [{"rating": "dislike"}, None]
    rate(chat, second["message_id"], rating="like")
    ratings = [message["feedback"] for message in chat.messages(first["conversation_id"])]
    assert ratings == [{"rating": "dislike"}, {"rating": "like"}]


def test_a_running_and_a_failed_turn_can_be_rated(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    """One that still runs, and one that failed."""
    fake.queue(script(text("One"), gate, succeed()))
    with chat.open("Count") as stream:
        event = stream.next()
        rate(chat, event["message_id"], rating="like")
        assert shown(chat, event["conversation_id"]) == {"rating": "like"}
        gate.open()
        stream.rest()
    assert shown(chat, event["conversation_id"]) == {"rating": "like"}, "the turn's end leaves it"
    fake.script = script(text("Two"), fail("InvokeRateLimitError"))
    failed = chat.streaming()
    rate(chat, failed.last["message_id"], rating="dislike")
    assert shown(chat, failed.conversation_id) == {"rating": "dislike"}


def test_the_app_lists_the_ratings_of_all_users(own: Chat) -> None:
    other = Chat(own.client, f"{own.user}-2")
    assert own.client.get("/app/feedbacks").json() == {"data": []}
    mine, theirs, silent = own.blocking(), other.blocking(), own.blocking()
    rate(own, mine["message_id"], rating="like", content="Good \x00")
    rate(other, theirs["message_id"], rating="dislike")
    newest, oldest = own.client.get("/app/feedbacks").json()["data"]
    assert oldest == {
        "id": oldest["id"],
        "app_id": oldest["app_id"],
        "conversation_id": mine["conversation_id"],
        "message_id": mine["message_id"],
        "rating": "like",
        "content": "Good \ufffd",
        "from_source": "user",
        "from_end_user_id": oldest["from_end_user_id"],
        "from_account_id": None,
        "created_at": oldest["created_at"],
        "updated_at": oldest["updated_at"],
    }
    assert (newest["message_id"], newest["rating"], newest["content"]) == (
        theirs["message_id"],
        "dislike",
        None,
    )
    assert newest["from_end_user_id"] != oldest["from_end_user_id"]
    assert newest["app_id"] == oldest["app_id"]
    for name in ("created_at", "updated_at"):
        assert datetime.fromisoformat(oldest[name]).utcoffset() is not None

    rate(own, mine["message_id"], rating="dislike")
    [_, changed] = own.client.get("/app/feedbacks").json()["data"]
    assert changed == {
        **oldest,
        "rating": "dislike",
        "content": None,
        "updated_at": changed["updated_at"],
    }
    assert changed["updated_at"] > oldest["updated_at"]
    rate(other, theirs["message_id"], rating=None)
    ids = [item["message_id"] for item in own.client.get("/app/feedbacks").json()["data"]]
    assert ids == [mine["message_id"]]
    assert silent["message_id"] not in ids


def test_concurrent_ratings_of_a_message_leave_one_row(own: Chat) -> None:
    message_id = own.blocking()["message_id"]
    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(rate, own, message_id, rating=it) for it in ["like", "dislike"] * 8]
    assert [future.result().json() for future in done] == [DONE] * 16
    assert len(own.client.get("/app/feedbacks").json()["data"]) == 1


def test_ratings_are_listed_page_by_page(own: Chat) -> None:
    ids = [own.blocking()["message_id"] for _ in range(5)]
    for message_id in ids:
        rate(own, message_id, rating="like")
    pages = [
        [
            item["message_id"]
            for item in own.client.get("/app/feedbacks", params={"page": page, "limit": 2}).json()["data"]
        ]
        for page in (1, 2, 3, 4)
    ]
    newest = ids[::-1]
    assert pages == [newest[:2], newest[2:4], newest[4:], []]


@pytest.mark.parametrize("rating", ["love", "", "LIKE", 1, True, ["like"]])
def test_a_wrong_rating_is_refused_with_the_name_of_the_field(chat: Chat, rating: Any) -> None:
    answered = chat.blocking()
    error = refused(rate(chat, answered["message_id"], rating=rating), 400, "invalid_param")
    assert "rating" in error["message"]
    assert shown(chat, answered["conversation_id"]) is None


def test_only_its_user_can_rate_a_message(chat: Chat) -> None:
    answered = chat.blocking()
    path = f"/messages/{answered['message_id']}/feedbacks"
    refused(chat.client.post(path, json={"rating": "like"}), 400, "invalid_param")
    stranger = Chat(chat.client, f"{chat.user}-2")
    stranger.blocking()
    refused(rate(stranger, answered["message_id"], rating="like"), 404, "not_found")
    refused(rate(chat, str(uuid4()), rating="like"), 404, "not_found")
    refused(rate(chat, "nonsense", rating="like"), 404, "not_found")
    assert shown(chat, answered["conversation_id"]) is None


@pytest.mark.parametrize(
    "params", [{"page": 0}, {"page": 10**30}, {"page": "one"}, {"limit": 0}, {"limit": 102}]
)
def test_wrong_parameters_of_the_list_are_refused(client: httpx.Client, params: dict[str, Any]) -> None:
    [name] = params
    response = client.get("/app/feedbacks", params=params)
    assert name in refused(response, 400, "invalid_param")["message"]
