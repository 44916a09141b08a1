"""HEAD: the status and headers of the GET, and nothing else."""

import httpx
import pytest

from tests.support.chat import Chat
from tests.support.fakes.script import Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer

VARIES = {"x-request-id", "date", "transfer-encoding"}


def _told(response: httpx.Response) -> tuple[int, dict[str, str]]:
    headers = {name: value for name, value in response.headers.items() if name.lower() not in VARIES}
    return response.status_code, headers


def test_every_get_route_answers_head_as_its_get(
    chat: Chat, fake: ScriptedBackend, server: GatewayServer
) -> None:
    fake.script = script(said("Yes"), succeed())
    answer = chat.blocking()
    file = chat.client.post(
        "/files/upload", files={"file": ("a.txt", b"hello", "text/plain")}, data={"user": chat.user}
    ).json()
    known = {
        "file_id": file["id"],
        "conversation_id": answer["conversation_id"],
        "message_id": answer["message_id"],
        "task_id": answer["task_id"],
        "form_token": "unknown",
        "workflow_run_id": "unknown",
        "end_user_id": file["created_by"],
    }
    paths = [path for path, item in chat.client.get("/openapi.json").json()["paths"].items() if "get" in item]
    assert len(paths) > 15
    query = f"user={chat.user}&conversation_id={answer['conversation_id']}"
    urls = [f"{path.format_map(known | dict.fromkeys(['action', 'job_id'], 'x'))}?{query}" for path in paths]
    urls += ["/docs", "/openapi.json", file["source_url"], f"{file['source_url']}&as_attachment=true"]
    assert {200, 404} <= {chat.client.get(url).status_code for url in urls}
    for url in urls:
        got, head = chat.client.get(url), chat.client.head(url)
        assert head.content == b""
        assert _told(head) == _told(got), url
    ranged = {"Range": "bytes=1-2"}
    assert _told(chat.client.head(file["source_url"], headers=ranged)) == _told(
        chat.client.get(file["source_url"], headers=ranged)
    )


def test_head_of_a_running_turn_does_not_wait_for_its_end(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with chat.open() as stream:
        stream.until("So far")
        head = chat.client.head(f"/chat-messages/{stream.task_id}/events?user={chat.user}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
        gate.open()
        assert stream.rest().answer == "So far, so good"


@pytest.mark.parametrize("path", ["/chat-messages", "/files/upload"])
def test_head_of_a_route_without_get_is_refused(chat: Chat, path: str) -> None:
    response = chat.client.head(path)
    assert response.status_code == 405
    assert "GET" not in response.headers["allow"]
