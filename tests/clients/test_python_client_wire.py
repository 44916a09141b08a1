"""The Python client against what proxies and strangers send: byte by byte, on a bare socket."""

import asyncio
import json
from typing import Any, Final

import pytest

from agent_gateway_client import (
    AsyncClient,
    Client,
    ConnectionLost,
    GatewayError,
    NotFound,
    Reconnect,
    Retry,
    TooManyRequests,
    Unauthorized,
    UnexpectedResponse,
)
from tests.support.fakes.raw_gateway import TASK, RawGateway, Reply, event, frame, reply, streamed

KEY: Final = "app-secret"
TEXTS: Final = ["naïve ", "你好 ", "🎉 ", "one\u2028two\u2029three\x85four ", "end"]
ANSWER: Final = "".join(TEXTS)
EVENTS: Final = [
    *(event("message", 2 + number, answer=text) for number, text in enumerate(TEXTS)),
    event("message_end", 9),
]
WHOLE: Final = streamed(b"".join(map(frame, EVENTS)), X_Task_Id=TASK)
AT_ONCE: Final = Retry(first_seconds=0.0)
PAGE: Final = b"<html>Bad gateway</html>"


def read(gateway: RawGateway, **options: Any) -> str:
    given: dict[str, Any] = {"user": "ada", "retry": AT_ONCE, **options}
    with Client(gateway.url, KEY, **given) as client:
        return client.chat("Hello").text()


async def read_async(gateway: RawGateway) -> str:
    async with AsyncClient(gateway.url, KEY, user="ada", retry=AT_ONCE) as client:
        return await client.chat("Hello").text()


def after_of(line: str) -> int:
    """The cursor of a request that resumes."""
    return int(line.rpartition("after=")[2])


@pytest.mark.parametrize(
    ("end", "least"), [(b"\n", b"\n\n"), (b"\r\n", b"\r\n\r"), (b"\r", b"\r\r")], ids=["lf", "crlf", "cr"]
)
def test_a_stream_cut_at_any_byte_is_read_whole(end: bytes, least: bytes) -> None:
    """In raw UTF-8, so that cuts fall into characters, and into line ends of each kind.

    `least` are the first bytes behind an event with which it is complete: a blank line has begun and ended.
    """
    short = [{**one, "task_id": "t", "created_at": 0} for one in (*EVENTS[1:4], EVENTS[-1])]
    frames = [frame(one, end) for one in short]
    whole = b"".join(frames)
    replies: list[Reply] = []
    cursors: list[int] = []
    for cut in range(len(whole) - 1):
        sent = whole[:cut]
        texts = [json.dumps(one, ensure_ascii=False).encode() for one in short]
        complete = sum(text + least in sent for text in texts)
        replies += [streamed(sent, X_Task_Id="t"), streamed(b"".join(frames[complete:]))]
        cursors.append(int(short[complete - 1]["event_id"]) if complete else 0)
    with RawGateway(*replies) as gateway, Client(gateway.url, KEY, user="ada", retry=AT_ONCE) as client:
        assert {client.chat("Hello").text() for _ in cursors} == {"".join(TEXTS[1:4])}
    assert [after_of(asked.line) for asked in gateway.asked[1::2]] == cursors


@pytest.mark.parametrize("cut", [1, 200, 500])
def test_the_async_client_reads_the_same(cut: int) -> None:
    raw = b"".join(map(frame, EVENTS))
    with RawGateway(streamed(raw[:cut], X_Task_Id=TASK), WHOLE) as gateway:
        assert asyncio.run(read_async(gateway))
        assert gateway.asked[1].line.startswith(f"GET /chat-messages/{TASK}/events?user=ada&after=")


def test_pings_comments_and_what_is_not_known_are_no_events() -> None:
    strange = b": hello\n\nretry: 5\n\nevent: ping\n\ndata\n\nnonsense: 1\n\n"
    unknown = frame(event("from_the_future", 1, answer="x"))
    with RawGateway(streamed(strange + unknown + b"".join(map(frame, EVENTS)))) as gateway:
        assert read(gateway) == ANSWER
        assert len(gateway.asked) == 1


def test_a_damaged_event_is_a_cut() -> None:
    damaged = streamed(frame(EVENTS[0]) + b'data: {"event": "mess\n\n', X_Task_Id=TASK)
    with RawGateway(damaged, streamed(b"".join(map(frame, EVENTS[1:])))) as gateway:
        assert read(gateway) == ANSWER
        assert after_of(gateway.asked[1].line) == 2


def test_a_silent_connection_is_a_cut() -> None:
    silent = streamed(frame(EVENTS[0]), is_silent=True, X_Task_Id=TASK)
    mute = Reply(b"", is_silent=True)
    seen: list[Reconnect] = []
    with (
        RawGateway(mute, silent, mute, streamed(b"".join(map(frame, EVENTS[1:])))) as gateway,
        Client(gateway.url, KEY, user="ada", retry=AT_ONCE, silence_seconds=0.3) as client,
    ):
        assert client.chat("Hello", on_reconnect=seen.append).text() == ANSWER
    # The first was silent before any answer: the POST was repeated, with its key and its body.
    assert [asked.line.partition(" ")[0] for asked in gateway.asked] == ["POST", "POST", "GET", "GET"]
    assert len({(asked.headers["idempotency-key"], asked.body) for asked in gateway.asked[:2]}) == 1
    assert [(one.failures, one.after) for one in seen] == [(1, 0), (1, 2), (2, 2)]
    assert all("silent" in str(one.cause) for one in seen)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_retry_after_is_waited_for(status: int, is_begun: bool) -> None:
    refused = reply(
        status, {"code": "service_unavailable", "message": "Later.", "status": status}, Retry_After="1"
    )
    begun = [streamed(frame(EVENTS[0]), X_Task_Id=TASK)] if is_begun else []
    seen: list[Reconnect] = []
    with (
        RawGateway(*begun, refused, streamed(b"".join(map(frame, EVENTS[len(begun) :])))) as gateway,
        Client(gateway.url, KEY, user="ada", retry=AT_ONCE) as client,
    ):
        assert client.chat("Hello", on_reconnect=seen.append).text() == ANSWER
    assert (seen[-1].seconds, seen[-1].cause.retry_after, seen[-1].cause.status) == (1.0, 1.0, status)


def test_a_retry_after_that_is_too_long_is_the_end() -> None:
    refused = reply(
        429, {"code": "too_many_requests", "message": "Later.", "status": 429}, Retry_After="3600"
    )
    with RawGateway(refused) as gateway, pytest.raises(TooManyRequests) as caught:
        read(gateway)
    assert (caught.value.retry_after, len(gateway.asked)) == (3600.0, 1)


def test_the_errors_of_proxies_are_tried_again() -> None:
    begun = streamed(frame(EVENTS[0]), X_Task_Id=TASK)
    with RawGateway(reply(502, PAGE), begun, reply(504, PAGE), reply(429, PAGE), WHOLE) as gateway:
        assert read(gateway).endswith(ANSWER)
        assert len(gateway.asked) == 5


def test_a_failed_turn_is_not_asked_for_again() -> None:
    """Its error is kept under its key for a day."""
    failed = reply(503, {"code": "provider_unavailable", "message": "Away.", "status": 503})
    with RawGateway(failed) as gateway, pytest.raises(GatewayError) as caught:
        read(gateway)
    assert (caught.value.code, len(gateway.asked)) == ("provider_unavailable", 1)


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(401, "unauthorized", Unauthorized), (404, "not_found", NotFound)]
)
def test_a_resume_that_is_refused_is_the_end(status: int, code: str, kind: type[GatewayError]) -> None:
    begun = streamed(frame(EVENTS[0]), X_Task_Id=TASK)
    refused = reply(status, {"code": code, "message": "No.", "status": status})
    with RawGateway(begun, refused) as gateway, pytest.raises(kind):
        read(gateway)
    assert len(gateway.asked) == 2


@pytest.mark.parametrize(
    "strange",
    [
        reply(200, PAGE, Content_Type="text/html"),
        reply(200, {"answer": "?"}),
        reply(302, b"", Location="http://127.0.0.1:1/elsewhere"),
        reply(404, PAGE),
        reply(403, {"detail": "no"}),
    ],
    ids=["page", "json", "redirect", "404", "403"],
)
def test_what_no_gateway_answers_is_an_error(strange: Reply) -> None:
    with RawGateway(strange) as gateway, pytest.raises(UnexpectedResponse) as caught:
        read(gateway)
    assert len(gateway.asked) == 1
    assert caught.value.code == "unexpected_response"


def test_attempts_have_a_bound_and_a_success_begins_a_new_count() -> None:
    begun = streamed(frame(EVENTS[0]), X_Task_Id=TASK)
    bad = reply(500, PAGE)
    with RawGateway(bad, bad, begun, bad) as gateway, pytest.raises(UnexpectedResponse):
        read(gateway, retry=Retry(attempts=2, first_seconds=0.0))
    # Two failures, a stream whose end is the first of the next failures, and two more.
    assert len(gateway.asked) == 5


def test_nobody_there_is_an_error_that_names_no_secret(unused_port: int) -> None:
    with Client(f"http://127.0.0.1:{unused_port}", KEY, user="ada", retry=Retry(attempts=0)) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.chat("Hello").text()
        with pytest.raises(ConnectionLost):
            client.list_conversations()
    assert KEY not in f"{caught.value!r} {caught.value} {client!r}"


def test_a_ticket_goes_to_its_own_host_and_the_key_does_not() -> None:
    with RawGateway(WHOLE) as elsewhere, RawGateway(WHOLE) as gateway:
        with Client(gateway.url, KEY, user="ada") as client:
            turn = client.follow(f"{elsewhere.url}/below/chat-messages/{TASK}/events?ticket=t%2Bt", after=1)
            assert turn.text() == ANSWER
            assert client.download_file(f"{elsewhere.url}/file?ticket=x")
        assert gateway.asked == []
    assert elsewhere.asked[0].line == f"GET /below/chat-messages/{TASK}/events?ticket=t%2Bt&after=1"
    assert not [asked for asked in elsewhere.asked if "authorization" in asked.headers]


def test_a_gateway_below_a_path_is_asked_below_it() -> None:
    cut = streamed(frame(EVENTS[0]), X_Task_Id=TASK, X_Turn_Events_URL="/chat-messages/x/events?ticket=y")
    with RawGateway(cut, cut, WHOLE) as gateway, Client(f"{gateway.url}/team/v1/", KEY, user="a b") as client:
        turn = client.chat("Hello")
        turn.text()
        assert turn.events_url == "/chat-messages/x/events?ticket=y"
        client.follow(turn.events_url).text()
    assert [asked.line for asked in gateway.asked] == [
        "POST /team/v1/chat-messages",
        f"GET /team/v1/chat-messages/{TASK}/events?user=a+b&after=2",
        f"GET /team/v1/chat-messages/{TASK}/events?user=a+b&after=2",
        "GET /team/v1/chat-messages/x/events?ticket=y&after=0",
    ]
    assert {asked.headers.get("authorization") for asked in gateway.asked} == {f"Bearer {KEY}", None}


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://127.0.0.1", KEY),
        ("127.0.0.1:8000", KEY),
        ("http://ada:secret@127.0.0.1", KEY),
        ("http://127.0.0.1", "app-\nX-Other: 1"),
        ("http://127.0.0.1", "app-ü"),
    ],
)
def test_a_url_or_a_key_that_cannot_work_is_refused(url: str, key: str) -> None:
    with pytest.raises(ValueError, match=r"gateway is like|no header carries"):
        Client(url, key)
