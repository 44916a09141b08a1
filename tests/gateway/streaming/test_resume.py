"""Streams that survive: a client that goes away, comes back, and hears exactly the rest.

That every cursor gets exactly its rest, live, ended and stored, is invariant I8 (test_invariants.py).
"""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from agent_gateway.domain.events import Result
from agent_gateway.domain.ids import TaskId
from agent_gateway.store.turns.reader import TurnReader
from tests.support.chat import PING, Chat, Heard, refused
from tests.support.fakes.script import (
    Cut,
    Forget,
    Gate,
    delta,
    fail,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import BOUND, GatewayServer, StartGateway, answer_of, wait_until
from tests.support.rows import installed

TOO_FAR = 1_000_000_002


def test_a_disconnect_does_not_end_the_turn(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    """I6. It comes back and has the whole text, nothing twice."""
    fake.queue(script(text("One ", "two "), gate, delta("three"), delta(" four"), succeed()))
    with chat.open() as stream:
        before = stream.until("two ")
    gate.open()
    after = chat.resumed(stream.task_id, last_event_id=before[-1]["event_id"])
    assert answer_of([*before, *after.events]) == "One two three four"
    assert after.kinds == ["message", "message", "message_end"]
    assert chat.message(after.conversation_id)["answer"] == "One two three four"
    assert fake.posts == 1


def test_a_client_that_never_comes_back_gets_its_answer_stored(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    with chat.open() as stream:
        conversation_id = stream.next()["conversation_id"]
    gate.open()
    wait_until(lambda: chat.message(conversation_id)["answer"] == "One two")
    assert not fake.cancels


def test_a_blocking_callers_disconnect_does_not_end_the_turn(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    conversation_id = chat.blocking("First")["conversation_id"]
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    address = ("127.0.0.1", httpx.URL(server.url).port)
    body = {"query": "Second", "user": chat.user, "conversation_id": conversation_id}
    request = chat.client.build_request("POST", "/chat-messages", json=body)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(address, timeout=BOUND) as connection:
        connection.sendall(f"POST /chat-messages HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        fake.wait_until(lambda: fake.posts == 2)
    gate.open()
    wait_until(lambda: chat.message(conversation_id)["answer"] == "One two")


def test_the_events_route_sends_ids_and_a_retry_interval(chat: Chat) -> None:
    first = chat.streaming("Hi", params={"ids": 1})
    again = chat.resumed(first.task_id)
    assert again.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert again.headers["cache-control"] == "no-cache, no-transform"
    assert again.headers["x-accel-buffering"] == "no"
    assert again.headers["x-task-id"] == first.task_id
    assert again.blocks == [again.blocks[0], *first.frames]
    pauses = {chat.resumed(first.task_id).blocks[0].removeprefix(b"retry: ") for _ in range(10)}
    assert all(500 <= int(pause) <= 2000 for pause in pauses)
    assert len(pauses) > 1, "readers of a process that died do not come back all at once"


def test_after_wins_over_last_event_id(chat: Chat) -> None:
    heard = chat.streaming("one two three", params={"ids": 1})
    assert chat.resumed(heard.task_id, after=3, last_event_id=1).frames == heard.after(3)
    assert chat.resumed(heard.task_id, after=0, last_event_id=3).frames == heard.frames
    assert chat.resumed(heard.task_id, last_event_id=3).frames == heard.after(3)
    assert chat.resumed(heard.task_id, last_event_id="").frames == heard.frames
    # A header that after overrules is not even looked at.
    assert chat.resumed(heard.task_id, after=3, last_event_id="nonsense").frames == heard.after(3)


def test_a_cursor_at_the_end_answers_204(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    """So that EventSource stops. From memory, and from the rows by the next process."""
    fake.queue(script(text("Hi"), succeed()), script(text("Hi"), fail()))
    server = start_gateway()
    with server.client() as client:
        chat = Chat(client, user)
        turns = [chat.streaming(), chat.streaming()]
        assert [turn.kinds[-1] for turn in turns] == ["message_end", "error"]
        assert_nothing_left(chat, turns)
    server.stop()
    with start_gateway().client() as client:
        assert_nothing_left(Chat(client, user), turns)


def test_a_repeated_post_with_a_cursor_at_the_end_answers_204(chat: Chat, fake: ScriptedBackend) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    heard = chat.streaming(headers=key)
    for cursor in (heard.ids[-1], TOO_FAR):
        response = chat.post(headers={**key, "Last-Event-ID": str(cursor)}, response_mode="streaming")
        assert (response.status_code, response.content) == (204, b"")
    again = {**key, "Last-Event-ID": str(heard.ids[-1])}
    assert chat.blocking(headers=again)["answer"] == heard.answer
    assert fake.posts == 1


def test_a_turn_keeps_the_mode_it_began_with(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    """R17: its app is another by now."""
    fake.script = script(thinking("Hm."), text("Hi"), succeed())
    key = {"Idempotency-Key": str(uuid4())}
    server = start_gateway(app_mode="agent")
    with server.client() as client:
        heard = Chat(client, user).streaming(headers=key)
    assert set(heard.kinds) == {"agent_thought", "agent_message", "message", "message_end"}
    server.stop()
    with start_gateway(app_mode="chat").client() as client:
        chat = Chat(client, user)
        assert chat.resumed(heard.task_id).events == heard.events
        assert chat.streaming(headers=key).events == heard.events
        assert chat.resumed(heard.task_id, mode="chat").kinds == ["message", "message_end"]
        assert chat.streaming().kinds == ["message", "message_end"]


def test_a_stored_result_is_read_from_the_database_once(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be megabytes."""
    reads: list[str] = []

    async def counted(reader: TurnReader, task_id: TaskId) -> Result | None:
        reads.append(task_id)
        return await read(reader, task_id)

    server = start_gateway()
    with server.client() as client:
        heard = Chat(client, user).streaming(headers={"Idempotency-Key": user})
    server.stop()
    read = TurnReader.result
    with start_gateway().client() as client:
        monkeypatch.setattr(TurnReader, "result", counted)
        chat = Chat(client, user)
        assert chat.resumed(heard.task_id).events == heard.events
        assert chat.events(heard.task_id, after=heard.ids[-1]).status_code == 204
        assert chat.blocking(headers={"Idempotency-Key": user})["answer"] == heard.answer
    assert reads == [heard.task_id] * 3


def test_a_cursor_inside_a_long_event_replays_the_whole_event(chat: Chat, fake: ScriptedBackend) -> None:
    """A closing message of several lines: only who has the last of them has it all."""
    answer = "x" * 80_000
    fake.queue(script(delta(answer), succeed()))
    heard = chat.streaming(params={"mode": "agent"})
    closing = [event for event in heard.events if event["event"] == "message"]
    assert "".join(event["answer"] for event in closing) == answer
    first, second, last = (event["event_id"] for event in closing)
    assert (first, second) == (last - 1, last - 1)
    assert chat.resumed(heard.task_id, after=second, mode="agent").events == [*closing, heard.last]
    assert chat.resumed(heard.task_id, after=last, mode="agent").events == [heard.last]


def test_a_cursor_inside_a_long_replace_replays_it_from_its_start(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    """A reader ahead of what was stored, cut inside the text that replaces its own."""
    answer = "x" * 80_000
    fake.script = script(delta(answer), Forget(), Cut())
    with start_gateway().client() as client:
        chat = Chat(client, user)
        task_id = chat.streaming().task_id
        heard = chat.resumed(task_id, after=1000)
        assert heard.kinds == ["message_replace", "message", "message", "error"]
        assert heard.answer == answer
        assert heard.ids[0] == heard.ids[1] == heard.ids[2] - 1
        assert chat.resumed(task_id, after=heard.ids[1]).events == heard.events
        assert chat.resumed(task_id, after=heard.ids[2]).kinds == ["error"]


def test_a_dropped_follower_ends_its_streams_so_that_clients_resume(
    postgres_url: str,
    fake: ScriptedBackend,
    gate: Gate,
    tmp_path: Path,
    user: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A reader with ids is cut without a terminal event, and without an error; elsewhere it has the rest."""
    shared = {"backend_url": fake.url, "database_url": postgres_url}
    fake.script = script(text("One ", "two "), gate, delta("three"), succeed())
    with (
        GatewayServer(tmp_path / "1", **shared) as one,
        GatewayServer(tmp_path / "2", **shared) as two,
        installed(one).client() as client,
        installed(two).client() as other_client,
    ):
        task_id = Chat(client, user).background()["task_id"]
        with Chat(other_client, user).follow(task_id) as stream:
            stream.until("two ")
            [followed] = two.gateway.live.followed()
            two._loop.call_soon_threadsafe(followed.cancel)
            heard = stream.rest()
        assert heard.kinds == ["message", "message"]
        gate.open()
        for chat in (Chat(client, user), Chat(other_client, user)):
            assert chat.resumed(task_id, after=heard.ids[-1]).kinds == ["message", "message_end"]
    assert not [record for record in caplog.records if record.exc_info]


def assert_nothing_left(chat: Chat, turns: list[Heard]) -> None:
    for turn in turns:
        for cursor in (turn.ids[-1], turn.ids[-1] + 1, TOO_FAR):
            response = chat.events(turn.task_id, after=cursor)
            assert (response.status_code, response.content) == (204, b"")
        last = chat.resumed(turn.task_id, after=turn.ids[-1] - 1)
        assert last.events == turn.events[-1:]


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "1-2", "", "٣"])
def test_a_bad_cursor_is_refused(chat: Chat, after: str) -> None:
    task_id = chat.blocking()["task_id"]
    assert "after" in refused(chat.events(task_id, after=after), 400, "invalid_param")["message"]
    if after.isascii() and after:
        error = refused(chat.events(task_id, last_event_id=after), 400, "invalid_param")
        assert "Last-Event-ID" in error["message"]


def test_a_reader_without_a_user_is_refused(chat: Chat) -> None:
    """With a key; the published default user would be somebody else."""
    task_id = chat.blocking()["task_id"]
    response = chat.client.get(f"/chat-messages/{task_id}/events")
    assert "user" in refused(response, 400, "invalid_param")["message"]


def test_events_of_an_unknown_turn_are_not_found(chat: Chat) -> None:
    refused(chat.events(str(uuid4())), 404, "not_found")
    task_id = chat.blocking()["task_id"]
    refused(Chat(chat.client, "a stranger").events(task_id), 404, "not_found")


def test_many_readers_get_the_same_events(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    """Some come before the first event, some in the middle, each with a mode of its own."""
    start = Gate()
    fake.queue(
        script(
            start,
            thinking("Hm."),
            text("One ", "two "),
            gate,
            tool_call("1", "look", {}),
            tool_result("1", "look", "seen"),
            text("three"),
            succeed(),
        )
    )
    modes = ["chat", "agent-chat", "agent", "chat"]
    with ThreadPoolExecutor(8) as threads:
        begun = chat.background()
        early = [threads.submit(chat.resumed, begun["task_id"], mode=mode) for mode in modes]
        with chat.follow(begun["task_id"]) as watching:
            assert watching.block() is not None
            assert watching.block() == PING, "nothing was said yet"
            start.open()
            watching.until("two ")
            late = [threads.submit(chat.resumed, begun["task_id"], mode=mode) for mode in modes]
            gate.open()
            watched = watching.rest()
        heard = [reader.result(BOUND) for reader in early], [reader.result(BOUND) for reader in late]
    assert [reader.frames for reader in heard[0]] == [reader.frames for reader in heard[1]]
    assert watched.frames == heard[0][0].frames == heard[0][3].frames
    assert [reader.answer for reader in heard[0]] == [
        "One two three",
        "One two three",
        "One two three" * 2,
        "One two three",
    ]
    assert len(fake.streams) == 1, "one stream at the backend, however many read"


def test_a_reader_that_resumes_in_the_middle_gets_pings(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    with chat.open() as stream:
        position = stream.until("One ")[-1]["event_id"]
        with chat.follow(stream.task_id, after=position) as resumed:
            assert (resumed.block() or b"").startswith(b"retry: ")
            assert resumed.block() == PING
            gate.open()
            assert [event.get("answer") for event in resumed.rest().events] == ["two", None]


def test_a_repeated_post_with_its_key_resumes(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    """Some SSE libraries post again when they reconnect."""
    fake.script = script(text("One ", "two "), gate, delta("three"), succeed())
    key = {"Idempotency-Key": str(uuid4())}
    with chat.open(headers=key, params={"ids": 1}) as stream:
        before = stream.until("One ")
    again = {**key, "Last-Event-ID": str(before[-1]["event_id"])}
    with chat.open(headers=again, params={"ids": 1}) as stream:
        assert stream.next()["answer"] == "two "
        gate.open()
        rest = stream.rest()
    assert answer_of([*before, *rest.events]) == "One two three"
    ended = chat.streaming(headers=again, params={"ids": 1})
    assert ended.frames == rest.frames
    assert not any(line.startswith(b"id:") for line in chat.streaming(headers=again).raw.split(b"\n"))
    assert fake.posts == 1


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "never used"}])
@pytest.mark.parametrize("mode", ["streaming", "blocking", "background"])
def test_a_repeated_post_without_a_known_key_is_refused(
    chat: Chat, fake: ScriptedBackend, headers: dict[str, str], mode: str
) -> None:
    response = chat.post(headers={**headers, "Last-Event-ID": "3"}, response_mode=mode)
    assert "/chat-messages/{task_id}/events" in refused(response, 400, "bad_request")["message"]
    assert fake.posts == 0


def test_a_turn_that_failed_is_replayed_with_its_error(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    fake.script = script(text("So far"), fail("InvokeRateLimitError"))
    server = start_gateway()
    with server.client() as client:
        heard = Chat(client, user).streaming(params={"ids": 1})
    server.stop()
    with start_gateway().client() as client:
        again = Chat(client, user).resumed(heard.task_id)
    assert again.frames == heard.frames
    assert (again.last["event"], again.last["code"]) == ("error", "rate_limit_error")
