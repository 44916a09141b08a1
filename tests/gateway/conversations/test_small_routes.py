"""Routes that answer from what is known anyway: variables, end users, and features that are off."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.chat import Chat, refused
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.rows import add_app

NOBODY = "00000000-0000-7000-8000-000000000000"
"""The id of nothing; the same in every process, since names of tests are made of it."""


def variables(chat: Chat, conversation_id: str, **params: Any) -> httpx.Response:
    given = {"user": chat.user, **params}
    return chat.client.get(f"/conversations/{conversation_id}/variables", params=given)


def put_variable(chat: Chat, conversation_id: str, variable_id: str, **body: Any) -> httpx.Response:
    path = f"/conversations/{conversation_id}/variables/{variable_id}"
    return chat.client.put(path, json={"user": chat.user, "value": 1, **body})


def test_a_conversation_has_no_variables(chat: Chat) -> None:
    mine = chat.blocking()["conversation_id"]
    empty: Json = {"limit": 20, "has_more": False, "data": []}
    assert variables(chat, mine).json() == empty
    assert variables(chat, mine.upper(), last_id="", variable_name="tone").json() == empty
    assert variables(chat, mine, limit=7).json() == {**empty, "limit": 7}
    default = Chat(chat.client, "DEFAULT-USER").blocking()["conversation_id"]
    assert chat.client.get(f"/conversations/{default}/variables").json() == empty

    refused(variables(chat, mine, last_id=str(uuid4())), 404, "not_found")
    for params in ({"limit": 0}, {"limit": 101}, {"last_id": "nonsense"}, {"variable_name": "x" * 256}):
        [name] = params
        assert name in refused(variables(chat, mine, **params), 400, "invalid_param")["message"]
    for other in (str(uuid4()), "nonsense"):
        refused(variables(chat, other), 404, "not_found")
    refused(variables(Chat(chat.client, "somebody"), mine), 404, "not_found")


def test_setting_an_unknown_variable_is_not_found(chat: Chat) -> None:
    mine = chat.blocking()["conversation_id"]
    for variable_id in (str(uuid4()), "nonsense"):
        values: list[Any] = [None, 1, "x", [], {"a": None}]
        for value in values:
            refused(put_variable(chat, mine, variable_id, value=value), 404, "not_found")
    stranger = put_variable(Chat(chat.client, "somebody"), mine, str(uuid4()))
    unknown = put_variable(chat, str(uuid4()), str(uuid4()))
    assert refused(stranger, 404, "not_found") == refused(unknown, 404, "not_found")
    path = f"/conversations/{mine}/variables/{uuid4()}"
    for body, name in (({"value": 1}, "user"), ({"user": chat.user}, "value")):
        assert name in refused(chat.client.put(path, json=body), 400, "invalid_param")["message"]


def end_user_of(chat: Chat) -> str:
    """The id under which a feedback names this user."""
    answered = chat.blocking()
    path = f"/messages/{answered['message_id']}/feedbacks"
    chat.client.post(path, json={"user": chat.user, "rating": "like"})
    found = chat.client.get("/app/feedbacks").json()["data"]
    [item] = [item for item in found if item["message_id"] == answered["message_id"]]
    return str(item["from_end_user_id"])


def test_an_end_user_is_read_by_its_id(chat: Chat) -> None:
    end_user_id = end_user_of(chat)
    response = chat.client.get(f"/end-users/{end_user_id}")
    assert response.status_code == 200
    shown = response.json()
    assert shown == {
        "id": end_user_id,
        "tenant_id": "default",
        "app_id": shown["app_id"],
        "type": "service_api",
        "external_user_id": chat.user,
        "name": None,
        "is_anonymous": False,
        "session_id": chat.user,
        "created_at": shown["created_at"],
        "updated_at": shown["created_at"],
    }
    assert datetime.fromisoformat(shown["created_at"]).utcoffset() is not None
    assert chat.client.get("/app/feedbacks").json()["data"][0]["app_id"] == shown["app_id"]
    assert chat.client.get(f"/end-users/{end_user_id.upper()}").json() == shown


def test_a_request_without_a_user_is_anonymous(chat: Chat) -> None:
    end_user_id = end_user_of(Chat(chat.client, "DEFAULT-USER"))
    assert chat.client.get(f"/end-users/{end_user_id}").json()["is_anonymous"] is True


def test_an_unknown_end_user_is_not_found(server: GatewayServer, chat: Chat) -> None:
    end_user_id = end_user_of(chat)
    add_app(server.settings.resolved_database_url(), key := f"app-other-{chat.user}")
    with server.client(key) as other:
        foreign = other.get(f"/end-users/{end_user_id}")
    for response in (
        foreign,
        *(chat.client.get(f"/end-users/{text}") for text in (str(uuid4()), "nonsense", "%00")),
    ):
        refused(response, 404, "end_user_not_found")
        assert response.content == foreign.content


SOUND = {"file": ("speech.mp3", b"\xff\xfb" * 1000, "audio/mpeg")}


@pytest.mark.parametrize("path", ["/audio-to-text", "/text-to-audio"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"files": SOUND, "data": {"user": "ada"}},
        {"files": SOUND},
        {"json": {"text": "Hello", "user": "ada", "streaming": False}},
        {"data": {"text": "Hello", "user": "ada"}},
        {"content": b"{"},
        {"content": b"\xff", "headers": {"Content-Type": "multipart/form-data"}},
    ],
    ids=["nothing", "recording", "no user", "json", "form", "no json", "no multipart"],
)
def test_speech_routes_answer_app_unavailable(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    refused(client.post(path, **body), 400, "app_unavailable")


def test_a_long_recording_is_refused_like_a_short_one(client: httpx.Client) -> None:
    """Nobody reads it, and the connection continues."""
    recording = {"file": ("speech.wav", b"\0" * 20_000_000, "audio/wav")}
    refused(client.post("/audio-to-text", files=recording), 400, "app_unavailable")
    assert client.get("/meta").status_code == 200


@pytest.mark.parametrize("path", ["/audio-to-text", "/text-to-audio"])
def test_speech_without_a_key_is_unauthorized(server: GatewayServer, path: str) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        refused(nobody.post(path, files=SOUND), 401, "unauthorized")
        refused(nobody.post(path, json={}), 401, "unauthorized")


def test_a_wrong_method_is_refused_with_the_allowed_ones(client: httpx.Client) -> None:
    for method, path, allowed in (
        ("DELETE", "/info", "GET"),
        ("GET", "/v1/text-to-audio", "POST"),
        ("PATCH", f"/conversations/{uuid4()}/variables/{uuid4()}", "PUT"),
    ):
        response = client.request(method, path)
        refused(response, 405, "method_not_allowed")
        assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("base", ["", "/v1"])
def test_the_base_url_names_the_service(server: GatewayServer, base: str) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        told = nobody.get(f"{base}/").raise_for_status().json()
    assert told.keys() == {"welcome", "api_version", "server_version"}
    assert told["api_version"] == "v1"


def test_annotations_are_an_empty_list_that_cannot_be_changed(client: httpx.Client) -> None:
    listed = client.get("/v1/apps/annotations", params={"page": "2", "limit": "5", "keyword": "x"})
    assert listed.json() == {"data": [], "has_more": False, "limit": 5, "total": 0, "page": 2}
    refused(client.get("/apps/annotations?limit=x"), 400, "invalid_param")
    told = {"question": "Who?", "answer": "Ada"}
    refused(client.post("/apps/annotations", json=told), 400, "app_unavailable")
    refused(client.put(f"/apps/annotations/{uuid4()}", json=told), 404, "not_found")
    refused(client.delete(f"/apps/annotations/{uuid4()}"), 404, "not_found")
    refused(client.post("/apps/annotation-reply/enable", json={}), 400, "app_unavailable")
    refused(client.get(f"/apps/annotation-reply/enable/status/{uuid4()}"), 404, "not_found")
    job = client.post("/apps/annotation-reply/disable", json={}).raise_for_status().json()
    status = client.get(f"/apps/annotation-reply/disable/status/{job['job_id']}").json()
    assert status == {**job, "error_msg": ""}
    assert job["job_status"] == "completed"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/completion-messages", 400, "app_unavailable"),
        ("POST", f"/completion-messages/{NOBODY}/stop", 400, "app_unavailable"),
        ("POST", "/workflows/run", 400, "not_workflow_app"),
        ("GET", "/workflows/logs", 400, "not_workflow_app"),
        ("GET", "/datasets", 501, "not_supported"),
        ("POST", f"/datasets/{NOBODY}/retrieve", 501, "not_supported"),
        ("GET", "/workspaces/current/models/model-types/llm", 501, "not_supported"),
    ],
)
def test_routes_of_other_kinds_of_apps_are_refused(
    server: GatewayServer, client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    for base in ("", "/v1"):
        refused(client.request(method, base + path, json={"user": "ada"}), status, code)
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        refused(nobody.request(method, path), 401, "unauthorized")
