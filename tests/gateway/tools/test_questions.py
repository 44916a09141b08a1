"""Questions of a real model to humans: what it is told about the tool, and what becomes of bad forms."""

import pytest

from tests.support.agents import Agents
from tests.support.chat import Chat
from tests.support.fakes.model_steps import StepSource, answer, call
from tests.support.human_input import form_of, submit, submitted, token_of
from tests.support.json_type import Json

SIZES = ["small", {"value": "l", "label": "Large"}]
FORM: Json = {
    "title": "Your order",
    "question": "Which size?",
    "markdown": "All have **cheese**.",
    "fields": [
        {"name": "size", "label": "Size", "type": "select", "required": True, "options": SIZES},
        {"name": "wish", "label": "Wish", "type": "paragraph"},
    ],
    "actions": [{"id": "order", "label": "Order", "style": "primary"}, {"id": "cancel", "label": "Cancel"}],
}


def asking(agents: Agents, *steps: StepSource) -> Chat:
    return agents.app(*steps, layers=[{"name": "ask_human", "type": "vendor.ask_human"}])


def test_a_model_asks_with_a_form_and_gets_what_was_filled_in(agents: Agents) -> None:
    chat = asking(agents, answer("Let me ask. ", call("ask_human", FORM)), "A large one.")
    asked = chat.streaming("I want a pizza")
    assert asked.answer == "Let me ask. \n\nWhich size?\n\nAll have **cheese**."
    form = form_of(asked)
    assert form["node_title"] == "Your order"
    assert [(field["output_variable_name"], field["type"]) for field in form["inputs"]] == [
        ("size", "select"),
        ("wish", "paragraph"),
    ]
    assert [option["value"] for option in form["inputs"][0]["options"]] == ["small", "l"]
    assert submit(chat, token_of(asked), "order", size="huge").status_code == 400
    done = chat.resumed(submitted(chat, token_of(asked), "order", size="l", wish="olives")["task_id"])
    assert done.answer == "A large one."
    [result] = agents.requests(chat)[1].results
    assert '"status":"submitted"' in result
    assert '"id":"order"' in result
    assert '"values":{"size":"l","wish":"olives"}' in result


def test_the_tool_tells_the_model_how_to_ask(agents: Agents) -> None:
    chat = asking(agents, "No question.")
    chat.streaming("Hello")
    [tool] = [one["function"] for one in agents.requests(chat)[0].body["tools"]]
    assert tool["name"] == "ask_human"
    assert "wait for the answer" in tool["description"]
    properties = tool["parameters"]["properties"]
    assert set(tool["parameters"]["required"]) >= {"title", "question"}
    assert all(properties[name].get("description") for name in ("title", "question", "fields", "actions"))
    field = tool["parameters"]["$defs"]["FormField"]["properties"]
    assert field["type"]["enum"] == ["paragraph", "select"]
    assert all(one.get("description") for one in field.values())


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ({"fields": [{"name": "a", "label": "A", "type": "select"}]}, "the select 'a' needs 'options'"),
        (
            {"fields": [{"name": "a", "label": "A", "type": "paragraph", "options": ["x"]}]},
            "its type must be 'select'",
        ),
        ({"fields": [{"name": "a", "label": "A", "type": "paragraph"}] * 2}, "two fields are called 'a'"),
        ({"actions": [{"id": "a", "label": "A"}] * 2}, "two actions are called 'a'"),
        ({"fields": [{"name": "a", "label": "A", "type": "number"}]}, "paragraph"),
        ({"fields": [{"name": "not a name", "label": "A", "type": "paragraph"}]}, "pattern"),
        ({"question": ""}, "at least 1 character"),
    ],
)  # fmt: skip
def test_a_bad_form_is_told_to_the_model_which_asks_again(agents: Agents, more: Json, mistake: str) -> None:
    wrong = answer(call("ask_human", FORM | more))
    chat = asking(agents, wrong, wrong, answer(call("ask_human", {"title": "Size", "question": "Which?"})))
    asked = chat.streaming("I want a pizza")
    assert asked.answer == "Which?"
    assert mistake in agents.requests(chat)[1].results[0]
    assert [action["id"] for action in form_of(asked)["actions"]] == ["submit"]


def test_a_message_is_an_answer_to_a_question(agents: Agents) -> None:
    chat = asking(agents, answer(call("ask_human", FORM)), "Large, then.")
    asked = chat.streaming("I want a pizza")
    done = chat.streaming("Large please", conversation_id=asked.conversation_id)
    assert done.answer == "Large, then."
    assert '"message":"Large please"' in agents.requests(chat)[1].results[0]
