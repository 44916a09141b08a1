"""Background turns, the signed URL that follows exactly one turn, and the headers that carry it."""

import time
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from agent_gateway.routes.http.tickets import SALT
from tests.support.chat import Chat, Heard, Stream, refused
from tests.support.fakes.script import Gate, delta, fail, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import SECRET_KEY, GatewayServer, StartGateway

HOUR = 3600


def without_key(server: GatewayServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=20, trust_env=False)


def ticket_of(events_url: str) -> str:
    return parse_qs(urlsplit(events_url).query)["ticket"][0]


def test_a_background_turn_is_followed_without_a_key(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.script = script(text("One ", "two "), gate, delta("three"), succeed())
    begun = chat.background("Count")
    assert begun.keys() == {
        "task_id",
        "message_id",
        "conversation_id",
        "created_at",
        "status",
        "events_url",
    }
    assert begun["status"] == "running"
    assert abs(time.time() - begun["created_at"]) < 30
    assert begun["events_url"].startswith(f"/chat-messages/{begun['task_id']}/events?ticket=")

    with without_key(server) as client, client.stream("GET", begun["events_url"]) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        stream = Stream(response)
        stream.until("two ")
        gate.open()
        heard = stream.rest()
    assert heard.answer == "One two three"
    assert heard.last["event"] == "message_end"
    for name in ("task_id", "message_id", "conversation_id", "created_at"):
        assert heard.last[name] == begun[name]
    assert all(b"\nid: " in frame for frame in heard.frames)


def test_events_url_survives_reconnects(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.script = script(text("a", "b", "c"), gate, delta("d"), succeed())
    events_url = chat.background()["events_url"]
    with without_key(server) as client:
        seen = []
        for _ in range(3):
            headers = {"Last-Event-ID": str(seen[-1]["event_id"])} if seen else {}
            with client.stream("GET", events_url, headers=headers) as response:
                seen.append(Stream(response).next())
        gate.open()
        last = client.get(events_url, headers={"Last-Event-ID": str(seen[-1]["event_id"])})
        rest = Heard(last.content, last.headers).events
        assert [event["answer"] for event in [*seen, *rest[:-1]]] == ["a", "b", "c", "d"]
        done = client.get(events_url, headers={"Last-Event-ID": str(rest[-1]["event_id"])})
        assert (done.status_code, done.content) == (204, b"")


def test_a_ticket_opens_nothing_else(server: GatewayServer, chat: Chat, fake: ScriptedBackend) -> None:
    mine, other = chat.background(), chat.background()
    ticket = ticket_of(mine["events_url"])
    with without_key(server) as client:
        refused(client.get(f"/chat-messages/{other['task_id']}/events?ticket={ticket}"), 404, "not_found")
        for path in ("/conversations", "/messages", "/info", "/parameters"):
            refused(client.get(path, params={"ticket": ticket}), 401, "unauthorized")
            bearer = {"Authorization": f"Bearer {ticket}"}
            refused(client.get(path, headers=bearer), 401, "unauthorized")
        stop = client.post(f"/chat-messages/{mine['task_id']}/stop?ticket={ticket}", json={"user": chat.user})
        refused(stop, 401, "unauthorized")
        # The ticket carries the user: saying another one changes nothing.
        assert client.get(mine["events_url"], params={"user": "another"}).status_code in (200, 401)


@pytest.mark.parametrize("forged", ["", "x", "{ticket}x", "x{ticket}", "{head}.{other_tail}"])
def test_a_forged_ticket_opens_nothing(server: GatewayServer, chat: Chat, forged: str) -> None:
    begun, other = chat.background(), chat.background()
    ticket, others = ticket_of(begun["events_url"]), ticket_of(other["events_url"])
    # A ticket is payload, time and signature. The payload may begin with a dot.
    head, other_tail = ticket.rsplit(".", 2)[0], ".".join(others.rsplit(".", 2)[1:])
    text = forged.format(ticket=ticket, head=head, other_tail=other_tail)
    with without_key(server) as client:
        response = client.get(f"/chat-messages/{begun['task_id']}/events", params={"ticket": text})
        refused(response, 401, "unauthorized")


@pytest.mark.parametrize(("hours", "status"), [(1, 200), (3, 401)])
def test_a_ticket_expires(server: GatewayServer, chat: Chat, hours: int, status: int) -> None:
    """It is good for the longest turn and an hour more: two hours here."""

    class Earlier(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - hours * HOUR

    begun = chat.background()
    fresh = URLSafeTimedSerializer(SECRET_KEY, salt=SALT)
    signed = URLSafeTimedSerializer(SECRET_KEY, salt=SALT, signer=Earlier)
    ticket = signed.dumps(fresh.loads(ticket_of(begun["events_url"])))
    with without_key(server) as client:
        response = client.get(f"/chat-messages/{begun['task_id']}/events", params={"ticket": ticket})
        assert response.status_code == status
        if status != 200:
            refused(response, 401, "unauthorized")


def test_stream_responses_carry_the_events_url(server: GatewayServer, chat: Chat) -> None:
    heard = chat.streaming("Hi")
    assert heard.headers["X-Task-Id"] == heard.task_id
    with without_key(server) as client:
        again = client.get(heard.headers["X-Turn-Events-URL"])
    assert Heard(again.content, again.headers).events == heard.events


def test_an_ended_background_turn_reports_its_outcome(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend
) -> None:
    fake.queue(script(text("Hi"), succeed()), script(text("Oh"), fail()))
    for key, status in (("a", "completed"), ("b", "failed")):
        begun = chat.background(headers={"Idempotency-Key": key})
        chat.resumed(begun["task_id"])
        again = chat.background(headers={"Idempotency-Key": key})
        assert again["status"] == status
        assert {**again, "events_url": ""} == {**begun, "status": status, "events_url": ""}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_events_url_starts_with_the_public_url(start_gateway: StartGateway, user: str) -> None:
    public = "https://chat.example.com/agents"
    with start_gateway(public_url=f"{public}/").client() as client:
        chat = Chat(client, user)
        begun = chat.background()
        assert begun["events_url"].startswith(f"{public}/chat-messages/{begun['task_id']}/events?ticket=")
        heard = chat.streaming()
        assert heard.headers["X-Turn-Events-URL"].startswith(f"{public}/chat-messages/{heard.task_id}/")
        path = begun["events_url"].removeprefix(public)
        assert Heard(client.get(path).content, heard.headers).answer == "You said: Hello."
