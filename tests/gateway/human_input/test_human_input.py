"""A question to a human: its form, the answer, and the turn that carries it."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent_gateway.apps.config import default_app
from tests.support.chat import PING, Chat, refused
from tests.support.fakes.script import Emit, Gate, ask_human, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import history_of
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.human_input import (
    QUESTION,
    SIZES,
    asked,
    asking,
    awaiting,
    expire,
    extra,
    form_of,
    read,
    submit,
    submitted,
    token_of,
    told,
)
from tests.support.rows import add_app

MODES = ("chat", "agent-chat", "agent")
UNKNOWN = "0193a000-0000-7000-8000-000000000000"


@pytest.fixture
def chat_of(server: GatewayServer, user: str) -> Iterator[Any]:
    """This user at an app of the test's own."""
    clients: list[httpx.Client] = []

    def make(**config: Any) -> Chat:
        changed = default_app().model_copy(update=config)
        add_app(server.settings.resolved_database_url(), key := f"app-{len(clients)}-{user}", changed)
        clients.append(server.client(key))
        return Chat(clients[-1], user)

    yield make
    for client in clients:
        client.close()


# -- the question ---------------------------------------------------------------------------------


def test_a_question_ends_the_turn_with_a_form(chat: Chat, fake: ScriptedBackend) -> None:
    heard = asked(chat, fake)
    assert heard.kinds == ["message", "message", "human_input_required", "message_end"]
    assert heard.ids == [1, 2, 3, 5]  # the place of the closing message is kept in every mode
    assert heard.answer == f"Well.\n\n{QUESTION}"
    form = form_of(heard)
    assert form["form_content"] == (
        QUESTION + "\n\nComment\n\n{{#$output.comment#}}\n\nSize\n\n{{#$output.size#}}"
    )
    assert [item["output_variable_name"] for item in form["inputs"]] == ["comment", "size"]
    assert [item["required"] for item in form["inputs"]] == [False, True]
    assert form["inputs"][1]["options"] == SIZES
    assert form["actions"] == [
        {"id": "approve", "title": "Approve", "button_style": "primary"},
        {"id": "reject", "title": "Reject", "button_style": "accent"},
    ]
    assert form["resolved_default_values"] == {"comment": "none"}
    assert (form["node_title"], form["urgency"], form["approval"]) == ("Approval needed", "normal", None)
    assert form["approval_channels"] == []
    assert 0 < form["expiration_time"] - time.time() < 3 * 86_400 + 10
    assert len(form["form_token"]) >= 40
    body = read(chat, form["form_token"])
    assert body.status_code == 200, body.text
    shared = ("form_content", "inputs", "resolved_default_values", "expiration_time", "node_title")
    assert {name: body.json()[name] for name in shared} == {name: form[name] for name in shared}
    assert body.json()["user_actions"] == form["actions"]
    listed = extra(chat, heard)
    assert (listed["type"], listed["state"], listed["submitted"]) == ("human_input", "open", False)
    assert (listed["form_definition"], listed["form_submission_data"]) == (form, None)


def test_a_blocking_caller_gets_the_question_and_finds_its_form_in_the_list(
    chat: Chat, fake: ScriptedBackend
) -> None:
    fake.queue(asking())
    turn = chat.blocking("Do it")
    assert turn["answer"] == f"Well.\n\n{QUESTION}"
    [content] = chat.message(turn["conversation_id"])["extra_contents"]
    token = content["form_definition"]["form_token"]
    assert chat.resumed(submitted(chat, token)["task_id"]).kinds[-1] == "message_end"


@pytest.mark.parametrize(
    "deferred",
    [
        "odd",
        [],
        {"tool_call_id": 7, "args": None},
        {"tool_call_id": "call_ask_1", "args": "not JSON"},
        {"tool_call_id": "call_ask_1", "args": {"fields": [7, {"name": ""}], "actions": [{"id": None}]}},
        {"tool_call_id": "call_ask_1", "args": {"fields": "no list", "actions": 3, "title": ["odd"]}},
    ],
)
def test_an_unusual_question_becomes_a_form_with_one_action(
    chat: Chat, fake: ScriptedBackend, deferred: Any
) -> None:
    """And can be answered: as a tool's result when the call has a name, else as a message."""
    snapshot = {"schema_version": 1, "layers": []}
    data = {"session_snapshot": snapshot, "deferred_tool_call": deferred}
    fake.queue(script(Emit("run_succeeded", data)))
    heard = chat.streaming("Do it")
    form = form_of(heard)
    assert heard.answer == form["form_content"] == "The agent asks for your input."
    assert form["inputs"] == []
    assert form["actions"] == [{"id": "submit", "title": "Submit", "button_style": "primary"}]
    submitted(chat, form["form_token"], "submit")
    wait_until(lambda: fake.posts == 2)
    body = fake.requests[-1].body
    if isinstance(deferred, dict) and isinstance(deferred["tool_call_id"], str):
        assert told(fake)["action"] == {"id": "submit", "label": "Submit"}
        assert [layer["lifecycle_state"] for layer in body["session_snapshot"]["layers"]] == ["new"] * 5
    else:
        assert "deferred_tool_results" not in body
        assert "session_snapshot" not in body


def test_a_huge_question_fits_into_its_event(chat: Chat, fake: ScriptedBackend) -> None:
    fields = [{"name": f"n{number}", "label": "\U0001f600" * 200} for number in range(100)]
    fake.queue(script(ask_human("\U0001f600" * 60_000, fields=fields, markdown="")))
    heard = chat.streaming("Do it")
    assert heard.answer == "\U0001f600" * 60_000
    assert max(map(len, heard.frames)) < 512 * 1024
    assert form_of(heard)["inputs"] == []


def test_approval_data_is_passed_on(chat: Chat, fake: ScriptedBackend) -> None:
    approval = {"tool": "rm", "args": {"zz": 1, "a": [None, "\u2028"]}}
    fake.queue(script(ask_human("Sure?", approval=approval)))
    heard = chat.streaming("Do it")
    assert form_of(heard)["approval"] == approval
    assert read(chat, token_of(heard)).json()["approval"] == approval
    assert chat.resumed(heard.task_id).after(0)


def test_a_stop_before_the_question_makes_no_form(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    fake.queue(script(said("Well."), gate, ask_human("Sure?"), cancel="ignore"))
    with chat.open("Do it") as stream:
        stream.until("Well.")
        chat.stop(stream.task_id)
        gate.open()
        heard = stream.rest()
    assert heard.kinds == ["message", "message_end"]
    assert chat.message(heard.conversation_id)["extra_contents"] == []


# -- the answer -----------------------------------------------------------------------------------


def test_a_submission_starts_a_turn_with_the_answer(chat: Chat, fake: ScriptedBackend) -> None:
    fake.queue(script(said("Hi."), succeed()))
    first = chat.streaming("Hello")
    heard = asked(chat, fake, conversation_id=first.conversation_id)
    turn = submitted(chat, token_of(heard), size="l", comment="go", unknown=1)
    answer = chat.resumed(turn["task_id"])
    assert answer.ids[0] == 1
    assert answer.kinds[:2] == ["human_input_form_filled", "message"]
    assert answer.kinds[-1] == "message_end"
    filled = answer.events[0]
    assert filled["workflow_run_id"] == heard.events[0]["message_id"]
    assert filled["message_id"] == turn["message_id"]
    assert filled["data"] == {
        "node_id": heard.events[0]["message_id"],
        "node_title": "Approval needed",
        "rendered_content": f"{QUESTION}\n\nComment\n\ngo\n\nSize\n\nLarge",
        "action_id": "approve",
        "action_text": "Approve",
        "submitted_data": {"comment": "go", "size": "l"},
    }
    assert told(fake) == {
        "status": "submitted",
        "action": {"id": "approve", "label": "Approve"},
        "values": {"comment": "go", "size": "l"},
        "message": None,
        "rendered_content": None,
    }
    # The run continued from the open question, and the conversation continues from the run.
    parts = [
        part["part_kind"]
        for message in history_of(fake.requests[-1].body["session_snapshot"])
        for part in message["parts"]
    ]
    assert parts == ["user-prompt", "text", "user-prompt", "tool-call"]
    last = chat.streaming("And now?", conversation_id=first.conversation_id)
    assert last.kinds[-1] == "message_end"
    assert len(history_of(fake.requests[-1].body["session_snapshot"])) == 6

    messages = chat.messages(first.conversation_id)
    assert [message["query"] for message in messages] == [
        "Hello",
        "Do it",
        "Approve\nComment: go\nSize: Large",
        "And now?",
    ]
    listed = extra(chat, heard)
    assert (listed["state"], listed["submitted"]) == ("submitted", True)
    assert listed["form_submission_data"] == filled["data"]
    assert listed["form_submission_values"] == {"comment": "go", "size": "l"}
    with httpx.Client() as browser:
        replayed = browser.get(str(chat.client.base_url).rstrip("/") + turn["events_url"])
    assert replayed.content.split(b"\n\n", 1)[1] == b"\n\n".join(answer.frames) + b"\n\n"


def test_a_second_submission_is_refused(chat: Chat, fake: ScriptedBackend) -> None:
    heard = asked(chat, fake)
    token = token_of(heard)
    chat.resumed(submitted(chat, token)["task_id"])
    refused(submit(chat, token, size="s"), 412, "human_input_form_submitted")
    refused(submit(chat, token, "no such action"), 412, "human_input_form_submitted")
    refused(read(chat, token), 412, "human_input_form_submitted")
    assert fake.posts == 2


@pytest.mark.parametrize(
    ("action", "values", "named"),
    [
        ("other", {"size": "s"}, "action"),
        ("", {"size": "s"}, "action"),
        ("approve", {}, "inputs.size"),
        ("approve", {"size": None}, "inputs.size"),
        ("approve", {"size": ""}, "inputs.size"),
        ("approve", {"size": "xl"}, "inputs.size"),
        ("approve", {"size": {"deep": []}}, "inputs.size"),
    ],
)
def test_an_invalid_submission_leaves_the_form_open(
    chat: Chat, fake: ScriptedBackend, action: str, values: dict[str, Any], named: str
) -> None:
    heard = asked(chat, fake)
    assert named in refused(submit(chat, token_of(heard), action, **values), 400, "invalid_param")["message"]
    assert extra(chat, heard)["state"] == "open"
    assert fake.posts == 1
    submitted(chat, token_of(heard))


def test_a_body_without_action_or_user_is_refused(chat: Chat, fake: ScriptedBackend) -> None:
    token = token_of(asked(chat, fake))
    path = f"/form/human_input/{token}"
    for body in ({"user": "u"}, {"action": "approve"}, {"action": 7, "user": "u"}, None):
        refused(chat.client.post(path, json=body), 400, "invalid_param")
    assert read(chat, token).status_code == 200


def test_any_caller_with_the_token_and_a_key_of_the_app_can_answer(
    chat: Chat, chat_of: Any, fake: ScriptedBackend
) -> None:
    """Another user too: the turn is the asked one's. For another app's key there is no such form."""
    heard = asked(chat, fake)
    token = token_of(heard)
    stranger = chat_of()
    unknown = read(chat, "unknown")
    for response in (read(stranger, token), submit(stranger, token, size="s")):
        assert response.content == unknown.content
    assert submit(chat, "unknown%00", size="s").content == unknown.content
    refused(unknown, 404, "not_found")
    with httpx.Client(base_url=chat.client.base_url) as nobody:
        refused(nobody.get(f"/form/human_input/{token}"), 401, "unauthorized")
    turn = submitted(Chat(chat.client, "somebody else"), token)
    assert turn["conversation_id"] == heard.conversation_id
    assert chat.resumed(turn["task_id"]).kinds[-1] == "message_end"


def test_the_next_message_answers_an_open_question(chat: Chat, fake: ScriptedBackend) -> None:
    heard = asked(chat, fake)
    answer = chat.streaming("Yes, small.", conversation_id=heard.conversation_id)
    assert answer.kinds[0] == "human_input_form_filled"
    assert answer.events[0]["data"]["rendered_content"] == "Yes, small."
    assert answer.events[0]["data"]["action_id"] == ""
    assert answer.events[0]["data"]["submitted_data"] == {}
    assert told(fake) == {
        "status": "submitted",
        "action": None,
        "values": {},
        "message": "Yes, small.",
        "rendered_content": None,
    }
    refused(submit(chat, token_of(heard), size="s"), 412, "human_input_form_submitted")
    assert extra(chat, heard)["submitted"] is True
    third = chat.streaming("More", conversation_id=heard.conversation_id)
    assert third.kinds[0] == "message"
    assert "deferred_tool_results" not in fake.requests[-1].body


def test_a_queued_message_answers_the_question(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    """The gateway decides that it is the answer when it leaves the queue, not when it comes."""
    fake.queue(script(said("Well."), gate, ask_human("Sure?")))
    with chat.open("Do it") as question:
        question.until("Well.")
        conversation = chat.conversations()["data"][0]["id"]
        with chat.open("Yes", conversation_id=conversation) as waiting:
            later = chat.background("Thanks", conversation_id=conversation)
            gate.open()
            assert question.rest().kinds[-2:] == ["human_input_required", "message_end"]
            answer = waiting.rest()
    assert answer.kinds[0] == "human_input_form_filled"
    assert answer.kinds[-1] == "message_end"
    assert answer.ids[:2] == [1, 2]
    assert chat.resumed(later["task_id"]).kinds[0] == "message"
    bodies = [received.body for received in fake.requests]
    assert bodies[1]["deferred_tool_results"]["calls"]["call_ask_1"]["message"] == "Yes"
    assert "deferred_tool_results" not in bodies[2]


def test_an_app_can_refuse_messages_over_an_open_question(
    chat_of: Any, fake: ScriptedBackend, gate: Gate
) -> None:
    chat = chat_of(on_question="reject")
    fake.queue(script(said("Well."), gate, ask_human("Sure?")))
    with chat.open("Do it") as question:
        question.until("Well.")
        conversation = chat.conversations()["data"][0]["id"]
        waited = [chat.background(query, conversation_id=conversation) for query in ("Yes", "Yes!")]
        gate.open()
        heard = question.rest()
    for turn in waited:
        assert chat.resumed(turn["task_id"]).last["code"] == "human_input_required"
    key = {"Idempotency-Key": "k"}
    body = refused(chat.post("Yes", conversation_id=conversation), 409, "human_input_required")
    assert (body["message_id"], body["form_token"]) == (heard.events[0]["message_id"], token_of(heard))
    refused(chat.post("Yes", headers=key, conversation_id=conversation), 409, "human_input_required")
    assert fake.posts == 1
    chat.resumed(submitted(chat, token_of(heard), comment="ok")["task_id"])
    assert chat.streaming("Now", headers=key, conversation_id=conversation).kinds[-1] == "message_end"


def test_an_answer_can_lead_to_the_next_question(chat: Chat, fake: ScriptedBackend) -> None:
    first = asked(chat, fake)
    fake.queue(asking())
    second = chat.resumed(submitted(chat, token_of(first))["task_id"])
    assert second.kinds == [
        "human_input_form_filled",
        "message",
        "message",
        "human_input_required",
        "message_end",
    ]
    third = chat.resumed(submitted(chat, token_of(second))["task_id"])
    assert third.kinds[-1] == "message_end"
    assert [extra(chat, heard)["state"] for heard in (first, second)] == ["submitted", "submitted"]


@pytest.mark.usefixtures("early_failures_have_a_status")
def test_a_failed_answer_turn_is_shown_as_failed(chat: Chat, fake: ScriptedBackend) -> None:
    """With its real status when a message was the answer; then the question was never asked."""
    heard = asked(chat, fake)
    fake.queue(script(Emit("run_failed", {"error": "x", "reason": "InvokeRateLimitError"})))
    refused(
        chat.post("Yes", response_mode="streaming", conversation_id=heard.conversation_id),
        429,
        "rate_limit_error",
    )
    after = chat.streaming("Again", conversation_id=heard.conversation_id)
    assert after.kinds[-1] == "message_end"
    assert "session_snapshot" not in fake.requests[-1].body


def test_a_stopped_answer_turn_keeps_its_text(chat: Chat, fake: ScriptedBackend, gate: Gate) -> None:
    heard = asked(chat, fake)
    fake.queue(script(said("So "), gate, succeed()))
    turn = submitted(chat, token_of(heard))
    with chat.follow(turn["task_id"]) as stream:
        stream.until("So ")
        chat.stop(turn["task_id"])
        answer = stream.rest()
    assert answer.kinds == ["human_input_form_filled", "message", "message_end"]
    assert extra(chat, heard)["state"] == "submitted"
    assert chat.resumed(turn["task_id"], after=0).frames == answer.frames
    assert chat.resumed(turn["task_id"], after=1).frames == answer.frames[1:]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_question_and_answer_resume_anywhere(
    server: GatewayServer, chat: Chat, fake: ScriptedBackend, mode: str
) -> None:
    """From the live log and from the rows, at every cursor exactly the rest."""
    heard = asked(chat, fake)
    task_ids = [heard.task_id, submitted(chat, token_of(heard), size="s")["task_id"]]
    whole = [chat.resumed(task_id, mode=mode) for task_id in task_ids]
    assert whole[0].kinds[-1] == whole[1].kinds[-1] == "message_end"
    for source in ("log", "rows"):
        if source == "rows":
            server.gateway.live._ended._turns.clear()
        for task_id, all_of_it in zip(task_ids, whole, strict=True):
            for cursor in range(max(all_of_it.ids)):
                rest = chat.resumed(task_id, after=cursor, mode=mode)
                assert rest.frames == all_of_it.after(cursor), (source, cursor)
            assert chat.events(task_id, after=max(all_of_it.ids)).status_code == 204


# -- following the answer -------------------------------------------------------------------------


def test_a_reader_waits_for_the_answer(chat: Chat, fake: ScriptedBackend) -> None:
    heard = asked(chat, fake)
    with awaiting(chat, heard) as stream:
        assert [stream.block(), stream.block()] == [PING, PING]
        turn = submitted(chat, token_of(heard))
        answer = stream.rest()
    assert answer.kinds[0] == "human_input_form_filled"
    assert answer.events == chat.resumed(turn["task_id"]).events
    with awaiting(chat, heard) as stream:
        assert stream.rest().events == answer.events


def test_the_answer_stream_of_a_plain_message_follows_its_own_turn(chat: Chat, fake: ScriptedBackend) -> None:
    heard = chat.streaming("Hello")
    with awaiting(chat, heard) as stream:
        assert stream.rest().events == heard.events


def test_a_stranger_cannot_wait_for_the_answer(chat: Chat, chat_of: Any, fake: ScriptedBackend) -> None:
    heard = asked(chat, fake)
    path = f"/workflow/{heard.events[0]['message_id']}/events"
    unknown = chat.client.get(f"/workflow/{UNKNOWN}/events", params={"user": chat.user})
    refused(unknown, 404, "not_found")
    for client, who in ((chat.client, "other"), (chat.client, None), (chat_of().client, chat.user)):
        response = client.get(path, params={"user": who} if who else {})
        assert response.content == unknown.content
    assert chat.client.get("/workflow/odd/events", params={"user": chat.user}).content == unknown.content


# -- expiry ---------------------------------------------------------------------------------------


def test_the_agent_learns_that_a_question_expired(chat_of: Any, fake: ScriptedBackend) -> None:
    chat = chat_of(question_expires_seconds=0.2)
    heard = asked(chat, fake)
    with awaiting(chat, heard) as stream:
        answer = stream.rest()
    assert answer.kinds[0] == "human_input_form_timeout"
    assert answer.kinds[-1] == "message_end"
    assert answer.events[0]["data"] == {
        "node_id": heard.events[0]["message_id"],
        "node_title": "Approval needed",
        "expiration_time": form_of(heard)["expiration_time"],
    }
    assert told(fake) == {
        "status": "timeout",
        "action": None,
        "values": {},
        "message": None,
        "rendered_content": None,
    }
    token = token_of(heard)
    for response in (read(chat, token), submit(chat, token, size="s"), submit(chat, token, "odd")):
        refused(response, 412, "human_input_form_expired")
    listed = extra(chat, heard)
    assert (listed["state"], listed["submitted"], listed["form_submission_data"]) == ("timeout", False, None)
    task_id = str(answer.events[0]["task_id"])
    assert chat.resumed(task_id).events == answer.events
    assert [message["query"] for message in chat.messages(heard.conversation_id)][1:] == [
        "No answer was given in time."
    ]


def test_an_expired_question_can_be_dropped(
    server: GatewayServer, chat_of: Any, fake: ScriptedBackend
) -> None:
    chat = chat_of(on_question_expired="drop")
    fake.queue(script(said("Hi."), succeed()))
    first = chat.streaming("Hello")
    heard = asked(chat, fake, conversation_id=first.conversation_id)
    with awaiting(chat, heard) as stream:
        expire(server.settings.resolved_database_url(), heard)
        assert stream.rest().last["code"] == "human_input_form_expired"
    path = f"/workflow/{heard.events[0]['message_id']}/events"
    refused(chat.client.get(path, params={"user": chat.user}), 412, "human_input_form_expired")
    refused(submit(chat, token_of(heard), size="s"), 412, "human_input_form_expired")
    assert extra(chat, heard)["state"] == "timeout"
    assert fake.posts == 2
    after = chat.streaming("Go on", conversation_id=first.conversation_id)
    assert after.kinds[-1] == "message_end"
    # From before the question: the agent knows nothing of it.
    assert len(history_of(fake.requests[-1].body["session_snapshot"])) == 2
    assert "deferred_tool_results" not in fake.requests[-1].body
