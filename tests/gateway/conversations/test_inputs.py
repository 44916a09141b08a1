"""The inputs of a message: checked against the form of its app, and kept for the messages after it."""

from collections.abc import Iterator
from typing import Any

import pytest

from agent_gateway.apps.config import AppConfig
from tests.support.chat import Chat, refused
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.rows import add_app

FORM = [
    {"text-input": {"label": "Name", "variable": "name", "required": True, "max_length": 8}},
    {"select": {"label": "Tone", "variable": "tone", "options": ["friendly", "brief"]}},
    {"number": {"label": "Age", "variable": "age"}},
]
CONFIG = {
    "name": "A form",
    "user_input_form": FORM,
    "composition": {
        "layers": [
            {
                "name": "prompt",
                "type": "plain.prompt",
                "config": {"prefix": "${inputs.name}/${inputs.tone}/${inputs.age}", "user": "${query}"},
            },
            {"name": "history", "type": "pydantic_ai.history"},
        ]
    },
}


@pytest.fixture
def form(server: GatewayServer, user: str) -> Iterator[Chat]:
    """This test's user of an app with a form."""
    add_app(server.settings.resolved_database_url(), key := f"key-{user}", AppConfig.model_validate(CONFIG))
    with server.client(key) as client:
        yield Chat(client, user)


def prompts(fake: ScriptedBackend) -> list[str]:
    """What was filled into each run so far."""
    return [request.body["composition"]["layers"][0]["config"]["prefix"] for request in fake.requests]


@pytest.mark.parametrize("mode", ["streaming", "blocking", "background"])
@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({}, "inputs.name: is required"),
        (None, "inputs.name: is required"),
        ({"name": ""}, "inputs.name: is required"),
        ({"name": "Ada Lovelace"}, "inputs.name: must be at most 8 characters long"),
        ({"name": ["Ada"]}, "inputs.name: must be text"),
        ({"name": "Ada", "tone": "rude"}, "inputs.tone: must be one of the options"),
        ({"name": "Ada", "age": "old"}, "inputs.age: must be a number"),
        ({"age": "old"}, "inputs.name: is required; inputs.age: must be a number"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_the_name_of_the_field(
    form: Chat, fake: ScriptedBackend, inputs: Any, named: str, mode: str
) -> None:
    error = refused(form.post(inputs=inputs, response_mode=mode), 400, "invalid_param")
    assert error["message"] == named
    assert form.conversations()["data"] == [], "nothing was begun"
    assert fake.posts == 0


def test_a_conversation_keeps_the_inputs_of_its_first_message(form: Chat, fake: ScriptedBackend) -> None:
    conversation = form.blocking(inputs={"name": "Ada", "age": 36, "else": {"x": 1}})["conversation_id"]

    def go_on(**inputs: Any) -> Json:
        form.blocking(conversation_id=conversation, inputs=inputs)
        stored: Json = form.message(conversation)["inputs"]
        return stored

    first = {"name": "Ada", "age": 36, "else": {"x": 1}}
    assert go_on() == first
    assert go_on(tone="brief", name=None) == {**first, "tone": "brief"}
    assert go_on(name="Bob", age=0) == {**first, "name": "Bob", "age": 0}
    assert go_on() == first, "those of the conversation, not of the message before"
    assert prompts(fake) == ["Ada//36", "Ada//36", "Ada/brief/36", "Bob//0", "Ada//36"]
    assert form.conversations()["data"][0]["inputs"] == first


def test_inputs_of_a_later_message_are_validated(form: Chat, fake: ScriptedBackend) -> None:
    conversation = form.blocking(inputs={"name": "Ada"})["conversation_id"]
    response = form.post(conversation_id=conversation, inputs={"tone": "rude"})
    assert refused(response, 400, "invalid_param")["message"] == "inputs.tone: must be one of the options"
    form.blocking(conversation_id=conversation, inputs={"name": " ", "tone": "brief"})
    form.blocking(conversation_id=conversation, inputs={"name": "", "age": "5"})
    assert [message["inputs"] for message in form.messages(conversation)] == [
        {"name": "Ada"},
        {"name": "Ada", "tone": "brief"},
        {"name": "Ada", "age": 5},
    ]
    assert prompts(fake) == ["Ada//", "Ada/brief/", "Ada//5"], "what is required and blank is kept"


def test_a_stranger_learns_nothing_of_the_input_form_of_a_conversation(form: Chat) -> None:
    conversation = form.blocking(inputs={"name": "Ada"})["conversation_id"]
    stranger = Chat(form.client, f"{form.user}-other")
    refused(stranger.post(conversation_id=conversation, inputs={"tone": "rude"}), 404, "not_found")


def test_a_refused_message_does_not_use_up_its_idempotency_key(form: Chat) -> None:
    key = {"Idempotency-Key": "k"}
    refused(form.post(inputs={}, headers=key), 400, "invalid_param")
    answered = form.blocking(inputs={"name": "Ada"}, headers=key)
    assert form.blocking(inputs={"name": "Ada"}, headers=key) == answered
