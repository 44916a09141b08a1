"""The tool with which the built-in agent asks a human. A call ends a run, the answer starts the next one."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field
from pydantic_ai.exceptions import CallDeferred, ModelRetry
from pydantic_ai.toolsets import FunctionToolset
from typing_extensions import TypedDict

from agent_gateway.backend.embedded.tools.calls import RETRIES


class Option(TypedDict):
    """A choice of a select."""

    value: Annotated[str, Field(min_length=1, description="What you get when it is chosen.")]
    label: NotRequired[Annotated[str, Field(description="What the user sees; the value, if it is missing.")]]


class FormField(TypedDict):
    """An input of the form."""

    name: Annotated[
        str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="The key of the value in the answer.")
    ]
    label: Annotated[str, Field(min_length=1, description="What the user sees above the input.")]
    type: Annotated[
        Literal["paragraph", "select"],
        Field(description="`paragraph`: the user writes text. `select`: the user chooses one of `options`."),
    ]
    required: NotRequired[
        Annotated[bool, Field(description="Whether the form needs a value; false if missing.")]
    ]
    options: NotRequired[
        Annotated[list[str | Option], Field(description="The choices of a select; only a select has them.")]
    ]


class Action(TypedDict):
    """A button of the form."""

    id: Annotated[str, Field(min_length=1, max_length=64, description="What you get when it is pressed.")]
    label: Annotated[str, Field(min_length=1, description="What the user sees on it.")]
    style: NotRequired[
        Annotated[
            Literal["primary", "default", "destructive"],
            Field(description="`primary`: the one that you suggest. `destructive`: one that does harm."),
        ]
    ]


def ask_human(
    title: Annotated[str, Field(min_length=1, max_length=200)],
    question: Annotated[str, Field(min_length=1, max_length=4000)],
    actions: Annotated[list[Action], Field(max_length=10)] | None = None,
    fields: Annotated[list[FormField], Field(max_length=20)] | None = None,
    markdown: Annotated[str, Field(max_length=12000)] = "",
) -> str:
    """Ask the user for a decision, or for information that only the user has, and wait for the answer.

    Call it alone, and ask one thing at a time. The user may answer hours later. The result has `status`
    (`submitted` or `timeout`), the `action` that was chosen, the `values` of the fields, and `message` if the
    user wrote a message in place of filling in the form.

    Args:
        title: A few words above the question, such as "Your decision".
        question: The question, as one or two sentences.
        actions: The buttons with which the user answers, such as Approve and Reject. Without them there is
            one, Submit.
        fields: What the user can fill in. Leave it out if pressing a button is all you need.
        markdown: What the user should know before answering, as Markdown.
    """
    if mistake := _mistake(actions or [], fields or []):
        raise ModelRetry(f"This form cannot be shown: {mistake} Correct it and ask again.")
    raise CallDeferred


def _mistake(actions: Sequence[Action], fields: Sequence[FormField]) -> str:
    """What is wrong with a form whose parts are well formed; empty when nothing is."""
    for kind, names in (
        ("actions", [action["id"] for action in actions]),
        ("fields", [field["name"] for field in fields]),
    ):
        if twice := next((name for name in names if names.count(name) > 1), None):
            return f"two {kind} are called {twice!r}."
    for field in fields:
        has_options = bool(field.get("options"))
        if field["type"] == "select" and not has_options:
            return f"the select {field['name']!r} needs 'options'."
        if field["type"] != "select" and has_options:
            return f"the field {field['name']!r} has options, so its type must be 'select'."
    return ""


TOOLSET: Final = FunctionToolset[object]([ask_human], max_retries=RETRIES)
