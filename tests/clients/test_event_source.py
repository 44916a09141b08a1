"""SSE libraries from npm lose and double nothing, however often their connection is cut."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.client_program import node_program, read
from tests.support.client_story import only_message
from tests.support.fakes.script import Gate, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_server import API_KEY, GatewayServer, answer_of
from tests.support.json_type import Json

EVENT_SOURCE = node_program("event-source")
FETCH = node_program("fetch-event-source")
FIRST = [f"word{number} " for number in range(20)]
LATER = [f"more{number} " for number in range(20)]
ANSWER = "".join(FIRST + LATER)
CUTS = [3000, 2500]
"""Bytes of response, headers included: both end within the frames of FIRST."""


@pytest.fixture
def gate(backend: ScriptedBackend) -> Iterator[Gate]:
    """Stands in the middle of the next run's answer."""
    gate = Gate()
    backend.queue(script(text(*FIRST), gate, text(*LATER, index=1), succeed()))
    yield gate
    gate.open()


def begin(http: httpx.Client, user: str) -> Json:
    body = {"query": "Tell me", "user": user, "response_mode": "background"}
    response = http.post("/chat-messages", json=body)
    assert response.status_code == 202
    told: Json = response.json()
    return told


def check_whole(report: Json) -> None:
    events = [message["data"] for message in report["messages"]]
    assert answer_of(events) == ANSWER
    assert [event["event"] for event in events] == ["message"] * 40 + ["message_end"]
    positions = [event["event_id"] for event in events]
    assert positions == sorted(set(positions))
    assert [int(message["id"]) for message in report["messages"]] == positions


def last_event_ids(heads: list[str]) -> list[int]:
    """The `Last-Event-ID` of each request, 0 when it has none."""
    lines = [
        next((line for line in head.split("\r\n") if line.startswith("last-event-id:")), "") for head in heads
    ]
    return [int(line.partition(":")[2] or "0") for line in lines]


def test_event_source_resumes_after_cuts_and_stops_at_the_end(gateway: GatewayServer, gate: Gate) -> None:
    with http_proxy(gateway.url, CUTS) as proxy, gateway.client() as http:
        turn = begin(http, "source-live")
        program = EVENT_SOURCE.start(proxy.url + turn["events_url"])
        proxy.wait_for_connections(3)
        gate.open()
        report = read(program)
    check_whole(report)
    # EventSource reconnects after every end; only the 204 makes it stop.
    assert report["last_status"] == 204
    seen = last_event_ids(proxy.heads)
    assert len(seen) == 4
    assert seen == sorted(set(seen))
    assert seen[0] == 0
    assert seen[-1] == report["messages"][-1]["data"]["event_id"]


def test_event_source_reads_a_finished_turn_by_the_url_of_the_header(
    gateway: GatewayServer, gate: Gate
) -> None:
    gate.open()
    with gateway.client() as http:
        body = {"query": "Tell me", "user": "source-later", "response_mode": "streaming"}
        response = http.post("/chat-messages", json=body)
    report = EVENT_SOURCE.run(gateway.url + response.headers["x-turn-events-url"])
    check_whole(report)
    assert report["last_status"] == 204


def test_event_source_without_a_ticket_gives_up(gateway: GatewayServer, gate: Gate) -> None:
    gate.open()
    with gateway.client() as http:
        turn = begin(http, "source-thief")
    report = EVENT_SOURCE.run(gateway.url + turn["events_url"][:-3])
    assert report == {"messages": [], "last_status": 401}


def test_a_repeated_post_resumes_its_turn(
    gateway: GatewayServer, backend: ScriptedBackend, gate: Gate
) -> None:
    """The first cut is within the headers, so that request is repeated without a Last-Event-ID."""
    before = backend.posts
    with http_proxy(gateway.url, [50, 3000]) as proxy:
        program = FETCH.start(proxy.url, API_KEY, "fetch-key", "one-key")
        proxy.wait_for_connections(3)
        gate.open()
        report = read(program)
    check_whole(report)
    seen = last_event_ids(proxy.heads)
    assert len(seen) == 3
    assert seen[:2] == [0, 0]
    assert seen[2] > 0
    assert backend.posts == before + 1
    assert only_message(gateway, "fetch-key")["answer"] == ANSWER


def test_a_repeated_post_without_a_key_starts_no_turn(
    gateway: GatewayServer, backend: ScriptedBackend, gate: Gate
) -> None:
    before = backend.posts
    gate.open()
    with http_proxy(gateway.url, [3000]) as proxy:
        report = FETCH.run(proxy.url, API_KEY, "fetch-no-key")
    assert report["refused"]["status"] == 400
    assert report["refused"]["code"] == "bad_request"
    assert "/events" in report["refused"]["message"]
    assert backend.posts == before + 1
