"""The Python client against a real gateway: what it reads, stops, follows, answers and refuses."""

import asyncio
from collections.abc import Iterator
from typing import Any, assert_type

import httpx
import pytest

from agent_gateway.limits import DEFAULTS
from agent_gateway_client import (
    AsyncClient,
    AsyncTurn,
    ChatStreamEvent,
    Client,
    ConversationBusy,
    GatewayError,
    IdempotencyConflict,
    InvalidParam,
    Mode,
    NotFound,
    Reconnect,
    Retry,
    TooManyRequests,
    Turn,
    Unauthorized,
    Unavailable,
)
from agent_gateway_client.types import ConversationPage, HumanInputForm
from tests.support.client_story import UNICODE
from tests.support.fakes.script import Cut, Forget, Gate, ask_human, delta, echo, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_server import API_KEY, GatewayServer, wait_until

AT_ONCE = Retry(first_seconds=0.0)


@pytest.fixture
def client(gateway: GatewayServer, user: str) -> Iterator[Client]:
    with Client(gateway.url, API_KEY, user=user) as client:
        yield client


def kinds(events: list[ChatStreamEvent]) -> list[str]:
    return [event["event"] for event in events]


def form_of(turn: Turn) -> HumanInputForm:
    [form] = [event["data"] for event in turn if event["event"] == "human_input_required"]
    return form


def test_an_answer_is_read_as_events_and_as_text(client: Client) -> None:
    turn = client.chat("Unicode")
    assert repr(turn) == "<Turn not begun, after event 0>"
    events = list(turn)
    assert kinds(events) == [*["message"] * len(UNICODE), "message_end"]
    assert turn.answer == turn.text() == UNICODE
    assert (turn.ended, turn.last_event_id) == (True, events[-1]["event_id"])
    assert (turn.message_id, turn.conversation_id) == (events[0]["message_id"], events[0]["conversation_id"])


@pytest.mark.parametrize("mode", ["chat", "agent-chat", "agent"])
def test_no_mode_doubles_the_text(client: Client, mode: Mode) -> None:
    turn = client.chat("Think", mode=mode)
    events = list(turn)
    assert turn.text() == "It is noon."
    assert ("agent_thought" in kinds(events)) == (mode != "chat")
    assert kinds(events).count("message") == {"chat": 2, "agent-chat": 0, "agent": 1}[mode]


def test_a_conversation_goes_on(client: Client) -> None:
    first = client.chat("My name is Ada")
    first.text()
    second = client.chat("What did I say?", conversation_id=first.conversation_id)
    assert "My name is Ada" in second.text()
    assert second.conversation_id == first.conversation_id


def test_a_loop_that_was_left_goes_on_after_the_last_event(client: Client) -> None:
    turn = client.chat("one two three four five")
    seen: list[ChatStreamEvent] = []
    for event in turn:
        seen.append(event)
        break
    turn.close()
    seen += list(turn)
    assert [event["event_id"] for event in seen] == sorted({event["event_id"] for event in seen})
    assert turn.text() == "You said: one two three four five."


def test_a_failed_turn_is_an_event_and_an_error_of_the_text(client: Client) -> None:
    turn = client.chat("Break")
    assert kinds(list(turn))[-1] == "error"
    with pytest.raises(Unavailable) as caught:
        turn.text()
    assert (caught.value.code, caught.value.status) == ("provider_unavailable", 503)
    assert turn.answer == "Half an "


@pytest.mark.parametrize(
    ("query", "options", "kind", "code", "status"),
    [
        (" ", {}, InvalidParam, "invalid_param", 400),
        ("Rate limit", {}, TooManyRequests, "rate_limit_error", 429),
        ("Hello", {"conversation_id": "01a204ae-18e5-737d-918a-52188975f73a"}, NotFound, "not_found", 404),
    ],
)
def test_a_refused_message_is_an_error_of_its_class(
    client: Client, query: str, options: Any, kind: type[GatewayError], code: str, status: int
) -> None:
    with pytest.raises(kind) as caught:
        client.chat(query, **options).text()
    assert (caught.value.code, caught.value.status) == (code, status)
    assert code in str(caught.value)


def test_a_wrong_key_is_an_error_and_in_no_text(gateway: GatewayServer) -> None:
    with Client(gateway.url, "app-wrong-key", user="ada") as client, pytest.raises(Unauthorized) as caught:
        client.chat("Hello").text()
    assert "app-wrong-key" not in f"{caught.value!r} {caught.value} {client!r} {vars(client)}"


def test_the_same_key_is_the_same_turn_and_another_body_is_refused(
    client: Client, backend: ScriptedBackend
) -> None:
    before = backend.posts
    first = client.chat("Once", idempotency_key="one-key")
    assert first.text() == client.chat("Once", idempotency_key="one-key").text()
    assert backend.posts == before + 1
    with pytest.raises(IdempotencyConflict):
        client.chat("Twice", idempotency_key="one-key").text()


def test_a_stop_keeps_the_partial_answer(client: Client) -> None:
    turn = client.chat("Stop me")
    for event in turn:
        if event["event"] == "message" and event["answer"] == "two ":
            turn.stop()
    assert turn.text() == "One two "


def test_a_stop_before_the_turn_has_begun_stops_it_once_it_has(client: Client) -> None:
    turn = client.chat("Stop me")
    turn.stop()
    assert turn.text() in ("", "One ", "One two ")


def test_another_process_goes_on_where_the_first_one_was(client: Client, gateway: GatewayServer) -> None:
    turn = client.chat("one two three four")
    for event in turn:
        if event["event_id"] == 3:
            break
    turn.close()
    assert turn.events_url is not None
    assert "ticket" not in repr(turn)
    with Client(gateway.url) as stranger:
        other = stranger.follow(turn.events_url, after=turn.last_event_id, text=turn.answer)
        events = list(other)
        whole = stranger.follow(gateway.url + turn.events_url)
        assert [event["event_id"] for event in whole][3:] == [event["event_id"] for event in events]
    assert (turn.answer, other.text(), whole.text()) == (
        *("You said: one ",),
        *["You said: one two three four."] * 2,
    )


@pytest.mark.parametrize("mode", ["chat", "agent-chat", "agent"])
def test_a_turn_followed_from_any_of_its_events_has_the_whole_text(client: Client, mode: Mode) -> None:
    turn = client.chat("Think", mode=mode)
    for event in turn:
        assert turn.task_id is not None
        follower = client.follow_turn(turn.task_id, after=event["event_id"], text=turn.answer, mode=None)
        if event["event"] != "message_end":
            assert follower.text() == "It is noon."
    assert turn.task_id is not None
    ended = client.follow_turn(turn.task_id, after=turn.last_event_id, text=turn.answer)
    assert (list(ended), ended.text()) == ([], "It is noon.")


def test_a_follower_in_mode_agent_knows_the_repeated_answer_by_its_place(
    agent_gateway: GatewayServer, user: str
) -> None:
    with Client(agent_gateway.url, API_KEY, user=user) as client:
        turn = client.chat("Think", mode="agent")
        events = list(turn)
        pieces = [event["event_id"] for event in events if event["event"] == "agent_message"]
        assert turn.events_url is not None
        # The mode is in the URL that was handed over, so this reader is not told it otherwise.
        url = f"{turn.events_url}&mode=agent"
        assert client.follow(url, after=pieces[-1], text="It is noon.").text() == "It is noon."


def test_a_background_turn_is_begun_once_though_its_answer_is_lost(
    client: Client, gateway: GatewayServer, backend: ScriptedBackend
) -> None:
    before = backend.posts
    with (
        http_proxy(gateway.url, [0, 20]) as proxy,
        Client(proxy.url, API_KEY, user=client.user, retry=AT_ONCE) as cut,
    ):
        turn = cut.begin("Hello")
        proxy.wait_for_connections(3)
    assert client.follow(turn["events_url"]).text() == "You said: Hello."
    assert backend.posts == before + 1


def test_a_whole_answer_is_had_once_though_it_is_lost(
    client: Client, gateway: GatewayServer, backend: ScriptedBackend
) -> None:
    before = backend.posts
    with (
        http_proxy(gateway.url, [100, 300]) as proxy,
        Client(proxy.url, API_KEY, user=client.user, retry=AT_ONCE) as cut,
    ):
        assert cut.send_chat_message("Hello")["answer"] == "You said: Hello."
    assert backend.posts == before + 1


def test_a_form_is_submitted_and_its_turn_is_read(client: Client, backend: ScriptedBackend) -> None:
    backend.queue(script(text("Well."), ask_human("May I go on?")), echo)
    asked = client.chat("Do it")
    form = form_of(asked)
    assert client.get_human_input_form(form["form_token"])["user_actions"][0]["id"] == "approve"
    turn = client.answer_form(form, "approve", {"comment": "yes"})
    events = list(turn)
    assert (kinds(events)[0], kinds(events)[-1]) == ("human_input_form_filled", "message_end")
    assert '"comment": "yes"' in turn.text()
    assert turn.conversation_id == asked.conversation_id
    assert client.follow_answer(form["node_id"]).text() == turn.text()


@pytest.mark.parametrize("cuts", [[0], [30, 30], [30, 250], [250, 100, 700]])
def test_a_form_whose_responses_are_lost_is_submitted_once(
    client: Client, gateway: GatewayServer, backend: ScriptedBackend, cuts: list[int]
) -> None:
    backend.queue(script(text("Well."), ask_human("May I go on?")), echo)
    form = form_of(client.chat("Do it"))
    before = backend.posts
    with http_proxy(gateway.url, cuts) as proxy, Client(proxy.url, API_KEY, user=client.user) as cut:
        assert "approve" in cut.answer_form(form, "approve", {"comment": "yes"}).text()
    assert backend.posts == before + 1


def test_a_refused_form_is_an_error(client: Client, backend: ScriptedBackend) -> None:
    backend.queue(script(text("Well."), ask_human("May I go on?")))
    form = form_of(client.chat("Do it"))
    with pytest.raises(InvalidParam):
        client.answer_form(form, "maybe").text()


def test_somebody_elses_answer_is_waited_for(
    client: Client, backend: ScriptedBackend, gateway: GatewayServer
) -> None:
    backend.queue(script(text("Well."), ask_human("May I go on?")), echo)
    form = form_of(client.chat("Do it"))
    reconnects: list[Reconnect] = []

    async def wait() -> str:
        with http_proxy(gateway.url, [30, 250]) as proxy:
            async with AsyncClient(proxy.url, API_KEY, user=client.user, retry=AT_ONCE) as waiting:
                turn = waiting.follow_answer(form["node_id"], on_reconnect=reconnects.append)
                reading = asyncio.create_task(turn.text())
                await asyncio.to_thread(proxy.wait_for_connections, 2)
                bob = client.for_user("bob")
                await asyncio.to_thread(bob.submit_human_input_form, form["form_token"], "reject")
                return await reading

    assert "reject" in asyncio.run(wait())
    assert reconnects


@pytest.mark.parametrize("mode", ["chat", "agent"])
@pytest.mark.parametrize("cuts", [[], [40_000, 300, 70_000, 90_000, 81_000]])
def test_a_stored_text_replaces_what_was_read_elsewhere(
    client: Client, gateway: GatewayServer, backend: ScriptedBackend, mode: Mode, cuts: list[int]
) -> None:
    """A text that is long enough to come in pieces, which are cut in between."""
    answer = "".join(f"{number} " for number in range(20_000))
    backend.queue(script(delta(answer), Forget(), Cut()))
    turn = client.chat("Begin")
    assert kinds(list(turn))[-1] == "error"
    assert turn.task_id is not None
    with http_proxy(gateway.url, cuts) as proxy, Client(proxy.url, API_KEY, user=client.user) as behind:
        reader = behind.follow_turn(turn.task_id, after=1000, text="more than was stored", mode=mode)
        seen = list(reader)
    assert kinds(seen)[0] == "message_replace"
    assert len(proxy.heads) == len(cuts) + 1
    assert reader.answer == answer


@pytest.mark.parametrize("cuts", [[], [40_000, 300, 70_000, 90_000, 81_000]])
def test_a_long_answer_that_is_repeated_and_cut_is_not_doubled(
    client: Client, gateway: GatewayServer, backend: ScriptedBackend, cuts: list[int]
) -> None:
    answer = "".join(f"{number} " for number in range(20_000))
    backend.queue(script(delta(answer), succeed()))
    turn = client.chat("Begin", mode="agent")
    assert turn.text() == answer
    assert turn.events_url is not None
    # The mode is in the URL, so this reader is not told it otherwise.
    with http_proxy(gateway.url, cuts) as proxy, Client(proxy.url) as behind:
        reader = behind.follow(f"{turn.events_url}&mode=agent", after=4, text=answer)
        assert set(kinds(list(reader))) == {"message", "message_end"}
        assert len(proxy.heads) == len(cuts) + 1
    assert reader.answer == answer


def test_a_busy_conversation_names_its_running_turn(
    backend: ScriptedBackend, user: str, tmp_path: Any
) -> None:
    gate = Gate()
    backend.queue(script(text("One "), gate, text("two", index=1), succeed()))
    (tmp_path / "app.yaml").write_text("name: x\non_busy: reject\n")
    with (
        GatewayServer(tmp_path, backend_url=backend.url, app_file=tmp_path / "app.yaml") as gateway,
        Client(gateway.url, API_KEY, user=user) as client,
    ):
        turn = client.chat("Begin")
        next(turn)
        with pytest.raises(ConversationBusy) as caught:
            client.chat("More", conversation_id=turn.conversation_id).text()
        assert caught.value.task_id == turn.task_id
        assert caught.value.events_url not in f"{caught.value!r} {caught.value}"
        gate.open()
        assert client.follow(caught.value.events_url).text() == "One two"


def test_the_calls_of_a_conversation(client: Client) -> None:
    turn = client.chat("Hello")
    turn.text()
    assert turn.conversation_id is not None
    assert turn.message_id is not None
    page = client.list_conversations(limit=5)
    assert_type(page, ConversationPage)
    assert [one["id"] for one in page["data"]] == [turn.conversation_id]
    assert client.rename_conversation(turn.conversation_id, "Greetings")["name"] == "Greetings"
    assert client.rename_conversation(turn.conversation_id, auto_generate=True)["id"] == turn.conversation_id
    assert client.rate_message(turn.message_id, "like", "good") == {"result": "success"}
    [message] = client.list_messages(turn.conversation_id)["data"]
    assert (message["answer"], message["feedback"]) == ("You said: Hello.", {"rating": "like"})
    rated = client.list_feedbacks()["data"][0]
    assert (rated["message_id"], rated["content"]) == (turn.message_id, "good")
    assert client.get_end_user(rated["from_end_user_id"])["external_user_id"] == client.user
    assert client.rate_message(turn.message_id, None) == {"result": "success"}
    assert client.get_suggested_questions(turn.message_id)["data"] == ["What else?", "Why?"]
    assert client.list_conversation_variables(turn.conversation_id)["data"] == []
    with pytest.raises(NotFound):
        client.update_conversation_variable(turn.conversation_id, turn.message_id, 1)
    assert client.for_user("somebody-else").list_conversations()["data"] == []
    client.delete_conversation(turn.conversation_id)
    with pytest.raises(NotFound):
        client.list_messages(turn.conversation_id)


def test_the_calls_of_files(client: Client) -> None:
    file = client.upload_file("Grüße".encode(), "näme.txt", "text/plain")
    assert (file["name"], file["mime_type"]) == ("näme.txt", "text/plain")
    assert client.preview_file(file["id"]).decode() == "Grüße"
    given: Any = {"type": "document", "transfer_method": "local_file", "upload_file_id": file["id"]}
    turn = client.chat("Read", files=[given])
    turn.text()
    [message] = client.list_messages(str(turn.conversation_id))["data"]
    assert client.download_file(message["message_files"][0]["url"]).decode() == "Grüße"
    with pytest.raises(NotFound):
        client.preview_file("01a204ae-18e5-737d-918a-52188975f73a")


def test_the_calls_of_an_app(client: Client, gateway: GatewayServer) -> None:
    assert client.get_app_info()["mode"] == "chat"
    assert client.get_app_parameters()["file_upload"]["enabled"] in (True, False)
    assert client.get_app_meta() == {"tool_icons": {}}
    assert client.get_app_site()["default_language"] == "en-US"
    with Client(f"{gateway.url}/v1/") as below:
        assert below.get_health() == below.get_readiness() == {"status": "ok"}
    with pytest.raises(GatewayError, match="not enabled"):
        client.text_to_audio("Hello")
    with pytest.raises(GatewayError, match="not enabled"):
        client.audio_to_text(b"RIFF", "a.wav")
    assert client.stop_chat_message("01a204ae-18e5-737d-918a-52188975f73a") == {"result": "success"}


def test_a_given_http_client_is_used_and_left_open(gateway: GatewayServer, user: str) -> None:
    asked: list[str] = []

    def note(request: httpx.Request) -> None:
        asked.append(request.url.path)

    with httpx.Client(event_hooks={"request": [note]}) as http:
        with Client(gateway.url, API_KEY, user=user, http_client=http) as client:
            assert client.chat("Hello").text() == "You said: Hello."
        assert not http.is_closed
    assert asked == ["/chat-messages"]


def test_the_async_client_reads_stops_follows_and_calls(gateway: GatewayServer, user: str) -> None:
    async def story() -> None:
        async with AsyncClient(f"{gateway.url}/v1", API_KEY, user=user) as client:
            turn = client.chat("Stop me")
            assert_type(turn, AsyncTurn)
            async with turn:
                async for event in turn:
                    if event["event"] == "message" and event["answer"] == "two ":
                        await turn.stop()
            assert await turn.text() == "One two "
            with pytest.raises(Unavailable):
                await client.chat("Break").text()
            begun = await client.begin("Hello")
            assert await client.follow(begun["events_url"]).text() == "You said: Hello."
            assert await client.follow_turn(begun["task_id"], mode="agent").text() == "You said: Hello."
            page = await client.list_conversations()
            assert_type(page, ConversationPage)
            assert len(page["data"]) == 3
            file = await client.upload_file(b"bytes", "name.txt")
            assert await client.preview_file(file["id"]) == b"bytes"
            assert (await client.for_user("another").list_conversations())["data"] == []

    asyncio.run(story())


def test_a_cancelled_task_leaves_its_turn_to_others(
    gateway: GatewayServer, backend: ScriptedBackend, user: str
) -> None:
    gate = Gate()
    backend.queue(script(text("One "), gate, text("two", index=1), succeed()))

    async def leave() -> AsyncTurn:
        async with AsyncClient(gateway.url, API_KEY, user=user) as client:
            turn = client.chat("Begin")
            await anext(turn)
            reading = asyncio.create_task(anext(turn))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            gate.open()
            assert await turn.text() == "One two"
            return turn

    assert asyncio.run(leave()).ended


def test_a_drain_of_the_gateway_is_waited_out(backend: ScriptedBackend, user: str, tmp_path: Any) -> None:
    """The gateway that began the turn is gone; the next one on the same port goes on."""
    gate = Gate()
    backend.queue(script(text("One "), gate, text("two", index=1), succeed()))
    with (
        GatewayServer(tmp_path, backend_url=backend.url, limits=DEFAULTS) as first,
        http_proxy(first.url, []) as proxy,
        Client(proxy.url, API_KEY, user=user, retry=Retry(first_seconds=0.05, attempts=400)) as client,
    ):
        reconnects: list[Reconnect] = []
        turn = client.chat("Begin", on_reconnect=reconnects.append)
        next(turn)
        first.stop()
        with GatewayServer(tmp_path, backend_url=backend.url) as second:
            proxy._target = ("127.0.0.1", int(second.url.rpartition(":")[2]))
            gate.open()
            assert turn.text() == "One two"
            wait_until(lambda: not second.gateway.live.running())
    assert reconnects
