"""Which version of its app a turn runs on, while the app changes under its conversations."""

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.store.db.tables import conversations
from tests.support.chat import Chat, Heard, refused
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet
from tests.support.gateway_server import NO_KEY_IS_REMEMBERED, StartGateway
from tests.support.json_type import Json
from tests.support.rows import apply_app, look, make_key

CHAT = {"message", "message_end"}
AGENT_CHAT = {"agent_message", "message_end"}


def version(number: int, **config: object) -> Json:
    """A configuration whose runs and whose streams tell its number."""
    layers = [
        {"name": "prompt", "type": "plain.prompt", "config": {"prefix": f"v{number}", "user": "${query}"}},
        {"name": "history", "type": "pydantic_ai.history"},
    ]
    return {
        "name": f"v{number}",
        "mode": "chat" if number % 2 else "agent-chat",
        "composition": {"layers": layers},
        **config,
    }


def told(heard: Heard) -> set[str]:
    """The kinds of a stream's events, which tell the mode of its version."""
    return set(heard.kinds)


def ran_on(fake: ScriptedBackend) -> list[str]:
    """The version of every run so far."""
    return [request.body["composition"]["layers"][0]["config"]["prefix"] for request in fake.requests]


def test_conversations_keep_or_follow_the_app_version_by_policy(
    start_gateway: StartGateway, fake: ScriptedBackend, database_url: str, user: str
) -> None:
    first = apply_app(database_url, "an-app", **version(1))
    _, key = make_key(database_url, first.app_id)
    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        heard = chat.streaming("One")
        old = heard.conversation_id
        assert told(heard) == CHAT

        apply_app(database_url, "an-app", **version(2))
        heard = chat.streaming("Two", conversation_id=old)
        assert told(heard) == CHAT, "its stream has the mode of its own version"
        assert chat.resumed(heard.task_id).events == heard.events
        assert chat.client.get("/info").json()["name"] == "v2"
        heard = chat.streaming("One")
        new = heard.conversation_id
        assert told(heard) == AGENT_CHAT
        assert ran_on(fake) == ["v1", "v1", "v2"]

        apply_app(database_url, "an-app", **version(3, on_change="follow"))
        for conversation in (old, new):
            assert told(chat.streaming("On", conversation_id=conversation)) == CHAT
        # Those that came along stay there when the next version takes nobody along.
        apply_app(database_url, "an-app", **version(4))
        chat.blocking("On", conversation_id=old)
        assert ran_on(fake)[3:] == ["v3", "v3", "v3"]
    remembering = ["session_snapshot" in request.body for request in fake.requests]
    assert remembering == [False, True, False, True, True, True]


@pytest.mark.parametrize("on_change", ["pin", "follow"])
def test_a_queued_message_runs_on_the_version_it_was_posted_under(
    start_gateway: StartGateway,
    fake: ScriptedBackend,
    gate: Gate,
    database_url: str,
    user: str,
    on_change: str,
) -> None:
    first = apply_app(database_url, "an-app", **version(1))
    _, key = make_key(database_url, first.app_id)
    fake.queue(script(said("First"), gate, succeed()))
    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        conversation = chat.background("One")["conversation_id"]
        early = chat.background("Two", conversation_id=conversation)
        apply_app(database_url, "an-app", **version(2, on_change=on_change))
        late = chat.background("Three", conversation_id=conversation)
        fake.wait_until(lambda: fake.posts == 1)
        gate.open()
        assert told(chat.resumed(early["task_id"])) == CHAT
        assert told(chat.resumed(late["task_id"])) == (CHAT if on_change == "pin" else AGENT_CHAT)
    assert ran_on(fake) == ["v1", "v1", "v1" if on_change == "pin" else "v2"]


def test_another_process_runs_a_turn_on_its_own_version(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """A queued turn is adopted, and read, by a process that has only ever heard of the new version."""
    first = apply_app(fleet.database_url, "an-app", **version(1))
    _, key = make_key(fleet.database_url, first.app_id)
    one = fleet.start(limits=NO_KEY_IS_REMEMBERED)
    chat = fleet.chat(one, user, key)
    fake.queue(script(said("First"), gate, succeed()))
    running = chat.background("One")
    waiting = chat.background("Two", conversation_id=running["conversation_id"])
    fake.wait_until(lambda: fake.posts == 1)
    apply_app(fleet.database_url, "an-app", **version(2, on_change="follow"))
    other = fleet.chat(fleet.start(limits=NO_KEY_IS_REMEMBERED), user, key)
    one.begin_stop(5.0)
    gate.open()
    assert told(other.resumed(running["task_id"])) == CHAT
    assert told(other.resumed(waiting["task_id"])) == CHAT
    assert ran_on(fake) == ["v1", "v1"]


def test_the_busy_policy_is_that_of_the_conversations_version(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    first = apply_app(database_url, "an-app", **version(1, on_busy="reject"))
    _, key = make_key(database_url, first.app_id)
    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        conversation = chat.blocking("One")["conversation_id"]
        apply_app(database_url, "an-app", **version(2, on_busy="enqueue"))
        fake.queue(script(said("Second"), gate, succeed()))
        running = chat.background("Two", conversation_id=conversation)
        refused(chat.post("Three", conversation_id=conversation), 409, "conversation_busy")
        gate.open()
        assert chat.resumed(running["task_id"]).last["event"] == "message_end"


def test_inputs_of_a_conversation_survive_a_change_of_the_form(
    start_gateway: StartGateway, fake: ScriptedBackend, database_url: str, user: str
) -> None:
    """What a client does not send is no mistake of its own."""

    def form(*options: str, **more: object) -> Json:
        field = {"label": "Tone", "variable": "tone", "required": True, "options": list(options)}
        return version(1, on_change="follow", user_input_form=[{"select": {**field, **more}}])

    first = apply_app(database_url, "an-app", **form("brief", "friendly"))
    _, key = make_key(database_url, first.app_id)
    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        conversation = chat.blocking(inputs={"tone": "brief"})["conversation_id"]
        apply_app(database_url, "an-app", **form("loud", variable="volume"))
        assert chat.blocking("On", conversation_id=conversation)
        apply_app(database_url, "an-app", **form("loud"))
        assert chat.blocking("On", conversation_id=conversation, inputs={})
        refused(chat.post("On", conversation_id=conversation, inputs={"tone": "brief"}), 400, "invalid_param")


def test_a_conversation_of_an_older_release_is_pinned_at_its_next_message(
    start_gateway: StartGateway, fake: ScriptedBackend, database_url: str, user: str
) -> None:
    """A process of that release, while the new one is rolled out, knows nothing of pins."""
    first = apply_app(database_url, "an-app", **version(1))
    _, key = make_key(database_url, first.app_id)

    async def forget(session: AsyncSession) -> None:
        await session.execute(update(conversations).values(app_version_id=None))

    with start_gateway(limits=NO_KEY_IS_REMEMBERED).client(key) as client:
        chat = Chat(client, user)
        conversation = chat.blocking("One")["conversation_id"]
        look(database_url, forget)
        apply_app(database_url, "an-app", **version(2))
        chat.blocking("Two", conversation_id=conversation)
        apply_app(database_url, "an-app", **version(3))
        chat.blocking("Three", conversation_id=conversation)
    assert ran_on(fake) == ["v1", "v2", "v2"]
