"""One turn at a time in a conversation, and a bound on all of them."""

import httpx
import pytest

from tests.support.chat import Chat, Heard, refused
from tests.support.fakes.script import Gate, delta, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, StartGateway, wait_until


@pytest.mark.parametrize("mode", ["streaming", "blocking", "background"])
def test_a_second_message_is_refused_with_the_id_of_the_active_turn(
    server: GatewayServer, rejecting: Chat, fake: ScriptedBackend, gate: Gate, mode: str
) -> None:
    chat = rejecting
    fake.queue(script(text("One "), gate, delta("two"), succeed()))
    with chat.open() as stream:
        conversation_id = stream.next()["conversation_id"]
        response = chat.post("And?", conversation_id=conversation_id, response_mode=mode)
        busy = refused(response, 409, "conversation_busy")
        assert busy.keys() == {"code", "message", "status", "task_id", "events_url"}
        assert busy["task_id"] == stream.task_id
        gate.open()
        heard = stream.rest()
    with httpx.Client(base_url=server.url, trust_env=False) as keyless:
        followed = keyless.get(busy["events_url"])
    assert Heard(followed.content, followed.headers).events == heard.events
    assert fake.posts == 1
    assert len(chat.messages(conversation_id)) == 1, "the refused message is not stored"
    assert chat.blocking("And now?", conversation_id=conversation_id)["answer"] == "You said: And now?."


def test_a_busy_conversation_does_not_block_other_conversations(
    chat: Chat, fake: ScriptedBackend, gate: Gate
) -> None:
    fake.queue(script(text("One"), gate, succeed()))
    with chat.open() as stream:
        stream.next()
        assert chat.blocking("Another")["answer"] == "You said: Another."
        gate.open()
        stream.rest()


def test_the_conversation_accepts_a_message_once_message_end_was_read(chat: Chat) -> None:
    """No client ever meets `busy` after it saw the end."""
    conversation_id = None
    for number in range(10):
        heard = chat.streaming(str(number), conversation_id=conversation_id)
        conversation_id = heard.conversation_id
    assert len(chat.messages(str(conversation_id))) == 10


def test_a_turn_beyond_the_limit_of_the_process_is_refused(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    server = start_gateway(max_active_turns=2)
    fake.script = script(text("One"), gate, succeed())
    with server.client() as client:
        chat = Chat(client, user)
        running = [chat.background(), chat.background()]
        for mode in ("streaming", "blocking", "background"):
            response = chat.post(response_mode=mode, headers={"Idempotency-Key": "mine"})
            refused(response, 503, "service_unavailable")
            assert int(response.headers["Retry-After"]) > 0
        assert client.get("/readyz").status_code == 200
        assert len(chat.conversations()["data"]) == 2, "nothing of the refused was stored"
        gate.open()
        for turn in running:
            chat.resumed(turn["task_id"])
        wait_until(lambda: not server.gateway.live.running())
        # Refused before begin: the key is still free.
        assert chat.blocking("Now", headers={"Idempotency-Key": "mine"})["answer"] == "One"
