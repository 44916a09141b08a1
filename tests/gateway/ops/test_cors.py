"""Pages of other origins: preflights, answers, errors, streams; byte by byte as a browser sees them."""

import socket
from typing import Any

import pytest
from pydantic import ValidationError

from agent_gateway.routes import app_info
from agent_gateway.settings import Settings
from tests.support.chat import Chat
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import API_KEY, BOUND, GatewayServer, StartGateway

PAGE = "https://app.example.com"
ORIGINS = f"{PAGE}, http://localhost:3000"
EXPOSED = {"X-Turn-Events-URL", "X-Task-Id", "X-Request-Id", "Retry-After"}


# One database is enough: nothing here is about rows.
one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def open_server(start_gateway: StartGateway) -> GatewayServer:
    """A gateway that pages of two origins may call."""
    return start_gateway(cors_origins=ORIGINS, max_body_bytes=2000)


def exchange(
    server: GatewayServer, head: str, body: str = "", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers, and all else that came."""
    lines = [f"{head} HTTP/1.1", "Host: gateway", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=BOUND) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    top, _, rest = answer.partition(b"\r\n\r\n")
    status, *given = top.decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in given]
    about = [name.lower() for name, _ in pairs if name.lower().startswith(("access-control-", "vary"))]
    assert len(about) == len(set(about)), "nothing is said twice"
    return int(status.split()[1]), {name.lower(): value for name, value in pairs}, rest


def preflight(server: GatewayServer, origin: str, path: str = "/chat-messages") -> tuple[int, dict[str, str]]:
    status, headers, _ = exchange(
        server,
        f"OPTIONS {path}",
        Origin=origin,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type,idempotency-key,last-event-id",
    )
    return status, headers


def about_origins(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


@one_database
@pytest.mark.parametrize("path", ["/chat-messages", "/v1/chat-messages", "/nowhere"])
@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_preflight_is_answered(open_server: GatewayServer, origin: str, path: str) -> None:
    status, headers = preflight(open_server, origin, path)
    assert status == 200
    assert headers["access-control-allow-origin"] == origin
    assert {"GET", "POST", "PUT", "DELETE"} <= set(headers["access-control-allow-methods"].split(", "))
    allowed = set(headers["access-control-allow-headers"].lower().replace(" ", "").split(","))
    assert {"authorization", "content-type", "idempotency-key", "last-event-id"} <= allowed
    assert "Origin" in headers["vary"]
    assert "access-control-allow-credentials" not in headers


@one_database
def test_a_page_can_send_head_with_its_key(open_server: GatewayServer) -> None:
    asked = {"Access_Control_Request_Method": "HEAD", "Access_Control_Request_Headers": "authorization"}
    status, headers, _ = exchange(open_server, "OPTIONS /conversations", Origin=PAGE, **asked)
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    key = f"Bearer {API_KEY}"
    status, _, body = exchange(open_server, "HEAD /conversations?user=a", Origin=PAGE, Authorization=key)
    assert (status, body) == (200, b"")


@one_database
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        f"{PAGE}.evil.com",
        f"{PAGE}:8443",
        "http://app.example.com",
        "null",
        "*",
        "",
    ],
)
def test_other_origins_get_no_cors_headers(open_server: GatewayServer, origin: str) -> None:
    _, headers = preflight(open_server, origin)
    assert "access-control-allow-origin" not in headers
    status, headers, _ = exchange(open_server, "GET /healthz", Origin=origin)
    assert (status, "access-control-allow-origin" in headers) == (200, False)


@one_database
def test_an_options_request_that_is_no_preflight_reaches_the_routes(open_server: GatewayServer) -> None:
    status, headers, body = exchange(open_server, "OPTIONS /chat-messages", Origin=PAGE)
    assert (status, headers["access-control-allow-origin"]) == (405, PAGE)
    assert b"method_not_allowed" in body
    status, headers, _ = exchange(open_server, "GET /healthz")
    assert (status, about_origins(headers)) == (200, {})


@one_database
@pytest.mark.parametrize(
    ("head", "more", "status"),
    [
        ("GET /info", {}, 200),
        ("GET /info", {"Authorization": "Bearer wrong"}, 401),
        ("GET /nowhere", {}, 404),
        ("PUT /info", {}, 405),
        ("POST /chat-messages", {"body": "{}"}, 400),
        ("POST /chat-messages", {"body": "x" * 3000}, 413),
        ("GET /parameters", {}, 500),
    ],
)
def test_answers_and_errors_have_cors_headers(
    open_server: GatewayServer,
    monkeypatch: pytest.MonkeyPatch,
    head: str,
    more: dict[str, Any],
    status: int,
) -> None:
    monkeypatch.setattr(app_info, "AppParameters", None)  # as a bug would
    given = {"Authorization": f"Bearer {API_KEY}", "Origin": PAGE, **more}
    answered, headers, body = exchange(open_server, head, **given)
    assert answered == status
    assert body
    assert headers["access-control-allow-origin"] == PAGE
    assert set(headers["access-control-expose-headers"].split(", ")) == EXPOSED
    assert headers["vary"] == "Origin"


@one_database
def test_streams_have_cors_headers(open_server: GatewayServer, fake: ScriptedBackend, user: str) -> None:
    """The stream of a POST, and EventSource with nothing but the URL that it names."""
    body = f'{{"query": "Hi", "user": "{user}", "response_mode": "streaming"}}'
    status, headers, posted = exchange(
        open_server, "POST /chat-messages", body=body, Authorization=f"Bearer {API_KEY}", Origin=PAGE
    )
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    assert headers["x-task-id"]
    assert headers["cache-control"] == "no-cache, no-transform"
    assert b'"event":"message_end"' in posted
    url = headers["x-turn-events-url"]
    status, headers, followed = exchange(open_server, f"GET {url}", Origin=PAGE, Accept="text/event-stream")
    assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
    assert b'"event":"message_end"' in followed
    last = followed.split(b"id: ")[-1].split(b"\n")[0].decode()
    again = {"Origin": PAGE, "Last_Event_ID": last}
    status, headers, nothing = exchange(open_server, f"GET {url}", **again)
    assert (status, headers["access-control-allow-origin"], nothing) == (204, PAGE, b"")


def test_cors_is_off_by_default(server: GatewayServer, chat: Chat) -> None:
    status, headers, _ = exchange(
        server, "OPTIONS /chat-messages", Origin=PAGE, Access_Control_Request_Method="POST"
    )
    assert (status, about_origins(headers)) == (405, {})
    status, headers, _ = exchange(server, "GET /healthz", Origin=PAGE)
    assert (status, about_origins(headers), "vary" in headers) == (200, {}, False)


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "https://*.example.com",
        "example.com",
        f"{PAGE}/",
        f"{PAGE}/chat",
        "https://App.example.com",
        "null",
    ],
)
def test_an_inexact_origin_is_refused_at_start(value: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin"):
        Settings(_env_file=None, cors_origins=f"{PAGE},{value}")
