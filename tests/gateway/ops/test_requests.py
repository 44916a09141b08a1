"""What requests may look like: tolerance, validation, keys, and the envelope of every refusal."""

import json
import time
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID, uuid4

import httpx
import pytest

from tests.support.chat import Chat, Heard, refused
from tests.support.fakes.script import Script, fail, refuse, script, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import API_KEY, GatewayServer

NOBODY = "00000000-0000-7000-8000-000000000000"
"""The id of nothing; the same in every process, since names of tests are made of it."""


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense"]
)
def test_a_json_body_is_accepted_with_any_content_type(chat: Chat, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps({"query": "Hi", "user": chat.user}).encode()
    answered = chat.client.post("/chat-messages", content=body, headers=headers)
    assert answered.json()["answer"] == "You said: Hi."
    stopped = chat.client.post(
        f"/chat-messages/{answered.json()['task_id']}/stop",
        content=json.dumps({"user": chat.user}).encode(),
        headers=headers,
    )
    assert stopped.json() == {"result": "success"}


def test_a_blocking_turn_answers_with_its_json(chat: Chat) -> None:
    answered = chat.blocking("Hi there")
    usage = answered["metadata"].pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 4, 6)
    assert len(usage) == 14
    assert abs(time.time() - answered["created_at"]) < 30
    assert answered == {
        "event": "message",
        "task_id": answered["task_id"],
        "id": answered["message_id"],
        "message_id": answered["message_id"],
        "conversation_id": answered["conversation_id"],
        "mode": "chat",
        "answer": "You said: Hi there.",
        "metadata": {"retriever_resources": [], "finish_reason": None},
        "created_at": answered["created_at"],
    }
    ids = {answered[name] for name in ("task_id", "message_id", "conversation_id")}
    assert len({UUID(text) for text in ids}) == 3
    assert chat.message(answered["conversation_id"])["id"] == answered["message_id"]


def test_the_accept_header_is_ignored(chat: Chat) -> None:
    streamed = chat.post("Hi", response_mode="streaming", headers={"Accept": "application/json"})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert Heard(streamed.content, streamed.headers).kinds[-1] == "message_end"
    blocked = chat.post("Hi", response_mode="blocking", headers={"Accept": "text/event-stream"})
    assert blocked.headers["content-type"] == "application/json"
    assert blocked.json()["answer"] == "You said: Hi."
    followed = chat.client.get(
        f"/chat-messages/{blocked.json()['task_id']}/events",
        params={"user": chat.user},
        headers={"Accept": "application/json"},
    )
    assert followed.headers["content-type"].startswith("text/event-stream")


def test_a_body_on_get_is_ignored(chat: Chat) -> None:
    for path in ("/conversations", "/info", "/parameters"):
        response = chat.client.request("GET", path, params={"user": chat.user}, content=b"{not json")
        assert response.status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {"workflow_id": "w", "trace_id": 7, "parent_message_id": None, "anything": {"else": []}},
        {"files": None, "inputs": None, "auto_generate_name": None, "response_mode": None},
        {"conversation_id": None},
        {"conversation_id": ""},
        {
            "files": [
                {"type": "image", "transfer_method": "remote_url", "url": "https://x.test/a.png", "id": 1}
            ]
        },
        {"files": [], "auto_generate_name": False},
    ],
)
def test_bodies_of_known_clients_are_accepted(chat: Chat, more: dict[str, Any]) -> None:
    body: dict[str, Any] = {"query": "Hi", "user": chat.user, "inputs": {}, **more}
    assert chat.client.post("/chat-messages", json=body).json()["answer"].startswith("You said: Hi")


def test_only_query_and_user_are_needed(chat: Chat) -> None:
    answered = chat.client.post("/chat-messages", json={"query": "Hi", "user": chat.user})
    assert answered.status_code == 200
    assert answered.json()["answer"] == "You said: Hi.", "blocking is the default"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": " \n\t"}, "query"),
        ({"query": 7}, "query"),
        ({"user": None}, "user"),
        ({"user": ""}, "user"),
        ({"user": "  "}, "user"),
        ({"user": "x" * 256}, "user"),
        ({"response_mode": "sometimes"}, "response_mode"),
        ({"conversation_id": "not-a-uuid"}, "conversation_id"),
        ({"conversation_id": 7}, "conversation_id"),
        ({"inputs": ["a"]}, "inputs"),
        ({"files": {}}, "files"),
        ({"files": [{"type": "film", "transfer_method": "remote_url"}]}, "files.0.type"),
        ({"files": [{"type": "image"}]}, "files.0.transfer_method"),
        ({"files": [{"type": "image", "transfer_method": "remote_url", "url": None}]}, "files.0.url"),
        ({"files": [{"type": "image", "transfer_method": "local_file"}]}, "files.0.upload_file_id"),
    ],
)
def test_a_wrong_body_is_refused_with_the_name_of_the_field(
    chat: Chat, fake: ScriptedBackend, change: dict[str, Any], named: str
) -> None:
    body: dict[str, Any] = {"query": "secret words", "user": chat.user, "inputs": {}, **change}
    error = refused(chat.client.post("/chat-messages", json=body), 400, "invalid_param")
    assert named in error["message"]
    assert "secret words" not in error["message"]
    assert fake.posts == 0


def test_all_errors_of_a_body_are_reported_at_once(chat: Chat, fake: ScriptedBackend) -> None:
    body = {"user": " ", "response_mode": "sometimes", "files": [{"type": "film"}], "conversation_id": 7}
    answer = chat.client.post(
        "/chat-messages", json=body, params={"mode": "loud"}, headers={"Idempotency-Key": "k" * 256}
    )
    told = refused(answer, 400, "invalid_param")["message"].split("; ")
    named = {one.partition(": ")[0] for one in told}
    fields = {"query", "user", "response_mode", "files.0.type", "files.0.transfer_method", "conversation_id"}
    assert named == {*fields, "mode", "Idempotency-Key"}
    assert fake.posts == 0


@pytest.mark.parametrize("missing", ["query", "user"])
def test_a_missing_field_is_reported_by_name(chat: Chat, missing: str) -> None:
    body: dict[str, Any] = {"query": "Hi", "user": chat.user, "inputs": {}}
    del body[missing]
    error = refused(chat.client.post("/chat-messages", json=body), 400, "invalid_param")
    assert missing in error["message"]
    no_user = chat.client.post(f"/chat-messages/{uuid4()}/stop", json={})
    assert "user" in refused(no_user, 400, "invalid_param")["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"query":"a","user":"b","inputs":{"n":NaN}}',
    ],
    ids=["nothing", "half", "array", "null", "text", "not utf-8", "deep", "nan"],
)
def test_a_body_that_is_no_json_object_is_refused(chat: Chat, content: bytes) -> None:
    response = chat.client.post("/chat-messages", content=content)
    assert response.status_code == 400
    assert response.json().keys() == {"code", "message", "status"}
    assert response.json()["code"] in ("invalid_param", "bad_request")


@pytest.mark.parametrize("params", [{"mode": "completion"}, {"mode": ""}, {"ids": "maybe"}])
def test_a_wrong_stream_parameter_is_reported_by_name(chat: Chat, params: dict[str, str]) -> None:
    task_id = chat.blocking()["task_id"]
    [name] = params
    posted = chat.post(response_mode="streaming", params=params)
    assert name in refused(posted, 400, "invalid_param")["message"]
    if name == "mode":
        assert name in refused(chat.events(task_id, **params), 400, "invalid_param")["message"]


def test_a_body_that_is_too_large_is_refused(chat: Chat, fake: ScriptedBackend) -> None:
    refused(chat.post("x" * 9_000_000), 413, "request_too_large")
    assert fake.posts == 0
    assert chat.blocking("x" * 1_000_000)["answer"].startswith("You said: xxx")


def test_an_unknown_conversation_is_not_found(chat: Chat, fake: ScriptedBackend) -> None:
    refused(chat.post(conversation_id=str(uuid4())), 404, "not_found")
    refused(chat.post(conversation_id=str(uuid4()), response_mode="streaming"), 404, "not_found")
    assert fake.posts == 0


def test_a_conversation_id_in_capitals_is_accepted(chat: Chat) -> None:
    first = chat.blocking()
    second = chat.blocking(conversation_id=first["conversation_id"].upper())
    assert second["conversation_id"] == first["conversation_id"]


def test_the_v1_prefix_serves_the_same_routes(server: GatewayServer, chat: Chat) -> None:
    with httpx.Client(
        base_url=f"{server.url}/v1", headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False
    ) as client:
        other = Chat(client, chat.user)
        answered = other.blocking("Hi")
        heard = other.streaming("Again", conversation_id=answered["conversation_id"])
        assert heard.answer == "You said: Again."
        assert other.resumed(heard.task_id).events == heard.events
        assert other.stop(heard.task_id) == {"result": "success"}
        assert other.conversations() == chat.conversations()
        assert other.messages(heard.conversation_id) == chat.messages(heard.conversation_id)
        assert client.get("/info").json() == chat.client.get("/info").json()
        assert client.get("/parameters").json() == chat.client.get("/parameters").json()
        refused(client.get("/nowhere"), 404, "not_found")
    paths = chat.client.get("/openapi.json").json()["paths"]
    assert "/chat-messages" in paths
    assert not [path for path in paths if path.startswith("/v1")]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_bearer_scheme_is_case_insensitive(server: GatewayServer, scheme: str) -> None:
    response = httpx.get(
        f"{server.url}/info", headers={"Authorization": f"{scheme} {API_KEY}"}, trust_env=False
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2", 404, "not_found"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/v1/chat-messages", 404, "not_found"),
        ("GET", "/chat-messages", 405, "method_not_allowed"),
        ("PUT", "/chat-messages", 405, "method_not_allowed"),
        ("DELETE", "/info", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/chat-messages/01a20491-c464-772c-a37c-c687fa9a12e8/stop", 405, "method_not_allowed"),
    ],
)
def test_unknown_routes_answer_with_the_error_envelope(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    assert refused(client.request(method, path), status, code).keys() == {"code", "message", "status"}


def test_malformed_ids_in_a_path_are_not_found(chat: Chat) -> None:
    for task_id in ("nonsense", "%00", "..%2f..", "ü", str(uuid4())):
        refused(
            chat.client.get(f"/chat-messages/{task_id}/events", params={"user": chat.user}), 404, "not_found"
        )


NO_TEXT = ["%D5%C5%C8%FD", "%00", "a%00b", "%FF%FE", "%ED%A0%80", "%C0%80", "a%C3"]
"""Percent-encoded: a name in GBK, NUL, half of a surrogate pair, NUL in disguise, half a character."""


@pytest.mark.parametrize("user", NO_TEXT)
def test_a_user_that_is_not_text_is_refused_on_every_route(chat: Chat, user: str) -> None:
    """Replaced by U+FFFD, two of them would be one, and one of them would read what the other has."""
    raw, some_id = unquote_to_bytes(user), uuid4()
    answers = [
        *(
            chat.client.get(f"{path}user={user}")
            for path in (
                "/conversations?",
                f"/messages?conversation_id={some_id}&",
                f"/chat-messages/{some_id}/events?",
                f"/files/{some_id}/preview?",
                f"/messages/{some_id}/suggested?",
                f"/workflow/{some_id}/events?",
            )
        ),
        chat.client.request("DELETE", f"/conversations/{some_id}?user={user}"),
        chat.client.post("/files/upload", files={"file": ("a.txt", b"x")}, data={"user": raw}),
        chat.client.post("/files/upload", data={"user": raw}, files={"file": ("a.txt", b"x")}),
    ]
    for answer in answers:
        assert refused(answer, 400, "invalid_param")["message"].startswith("user: ")


@pytest.mark.parametrize("user", ['"\\u0000"', '"a\\u0000"', '"\\ud83d"', '"a\\ude00b"', '"\\ude00\\ud83d"'])
@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/chat-messages", '"query": "Hi", "inputs": {}, '),
        ("POST", f"/chat-messages/{NOBODY}/stop", ""),
        ("DELETE", f"/conversations/{NOBODY}", ""),
        ("POST", f"/conversations/{NOBODY}/name", '"name": "N", '),
        ("PUT", f"/conversations/{NOBODY}/variables/{NOBODY}", '"value": 1, '),
        ("POST", f"/messages/{NOBODY}/feedbacks", '"rating": "like", '),
        ("POST", "/form/human_input/token", '"action": "a", "inputs": {}, '),
    ],
)
def test_a_user_with_half_a_surrogate_pair_is_refused(
    chat: Chat, fake: ScriptedBackend, method: str, path: str, more: str, user: str
) -> None:
    answer = chat.client.request(method, path, content=f'{{{more}"user": {user}}}'.encode())
    assert refused(answer, 400, "invalid_param")["message"].startswith("user: ")
    assert fake.posts == 0


def test_a_body_that_is_not_utf8_is_refused(chat: Chat, fake: ScriptedBackend) -> None:
    body = '{"query": "Hi", "user": "张三"}'.encode("gbk")
    assert (
        "UTF-8" in refused(chat.client.post("/chat-messages", content=body), 400, "invalid_param")["message"]
    )
    assert fake.posts == 0


@pytest.mark.parametrize("text", NO_TEXT)
def test_values_that_are_not_text_are_refused_by_name(chat: Chat, text: str) -> None:
    """In a query, a path and a header; that is said before anything is looked up."""
    for path, name in (
        (f"/conversations?last_id={text}", "last_id"),
        (f"/chat-messages/{uuid4()}/events?ticket={text}", "ticket"),
        (f"/files/{uuid4()}/download?ticket={text}", "ticket"),
        (f"/conversations?a={text}&{text}=b", "a"),
    ):
        assert refused(chat.client.get(path), 400, "invalid_param")["message"].startswith(f"{name}: ")
    if "%00" in text:
        return  # in a path: an id that is not found; in a header: no request
    for path, name in (
        (f"/form/human_input/{text}", "form_token"),
        (f"/v1/conversations/{text}/variables", "conversation_id"),
    ):
        assert refused(chat.client.get(path), 400, "invalid_param")["message"].startswith(f"{name}: ")
    headers = [(b"Idempotency-Key", unquote_to_bytes(text))]
    body = {"query": "Hi", "user": chat.user}
    answer = chat.client.post("/chat-messages", json=body, headers=headers)
    assert refused(answer, 400, "invalid_param")["message"].startswith("idempotency-key: ")


@pytest.mark.usefixtures("early_failures_have_a_status")
@pytest.mark.parametrize("mode", ["streaming", "blocking"])
def test_a_backend_refusal_becomes_an_http_status(chat: Chat, fake: ScriptedBackend, mode: str) -> None:
    fake.script = refuse(422)
    response = chat.post("sk-secret", response_mode=mode)
    refused(response, 502, "backend_refused")
    assert "sk-secret" not in response.text


@pytest.mark.usefixtures("early_failures_have_a_status")
def test_a_turn_that_fails_at_once_has_an_error_status(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = script(fail("InvokeRateLimitError"))
    refused(chat.post(response_mode="streaming"), 429, "rate_limit_error")
    refused(chat.post(response_mode="blocking"), 429, "rate_limit_error")
    fake.script = script(text("a"), fail("InvokeRateLimitError"))
    refused(chat.post(response_mode="blocking"), 429, "rate_limit_error")
    assert chat.post(response_mode="streaming").status_code == 200


@pytest.mark.usefixtures("early_failures_have_a_status")
def test_an_unreachable_backend_answers_with_retry_after(chat: Chat, fake: ScriptedBackend) -> None:
    fake.script = Script(create="cut")
    for mode in ("streaming", "blocking"):
        response = chat.post(response_mode=mode)
        refused(response, 503, "service_unavailable")
        assert response.headers["Retry-After"] == "2"


def test_a_trailing_slash_is_not_redirected(chat: Chat) -> None:
    """A redirect would have no envelope, name the host that the request named, and lose a POST's body."""
    refused(chat.client.get("/info/"), 404, "not_found")
    refused(chat.client.post("/v1/chat-messages/", json={}), 404, "not_found")


def test_similar_user_names_stay_different_users(chat: Chat) -> None:
    conversation_id = chat.blocking()["conversation_id"]
    for other in (f"{chat.user} ", f" {chat.user}", chat.user.upper()):
        params = {"user": other, "conversation_id": conversation_id}
        refused(chat.client.get("/messages", params=params), 404, "not_found")
