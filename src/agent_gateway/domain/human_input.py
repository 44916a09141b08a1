"""Questions to humans: forms, submissions and answers. Pure data."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import msgspec

from agent_gateway.domain.ids import FormId, MessageId
from agent_gateway.json_types import JsonObject


class FormOption(msgspec.Struct, frozen=True):
    """One choice of a select."""

    value: str
    label: str


class FormInput(msgspec.Struct, frozen=True):
    """A field of a form."""

    name: str
    kind: str
    """`paragraph`, `select`, or another kind on which the agent and the front end agree."""
    label: str
    required: bool = False
    options: tuple[FormOption, ...] = ()
    placeholder: str = ""
    default: Any = None
    """The initial value in a front end; the gateway never uses it."""


class FormAction(msgspec.Struct, frozen=True):
    """A button of a form: a form is submitted with one of them."""

    id: str
    label: str
    style: str = "default"


class FormDefinition(msgspec.Struct, frozen=True):
    """A question to a human as a form shows it."""

    title: str
    content: str
    """The question and its explanation, in Markdown."""
    inputs: tuple[FormInput, ...]
    actions: tuple[FormAction, ...]
    urgency: str = "normal"
    approval: Mapping[str, object] | None = None
    """What a human should approve, if the agent names it; passed on unchanged."""


class FormAnswer(msgspec.Struct, frozen=True):
    """The answer for the run: a submitted form, a message in its place, or that nobody answered."""

    status: Literal["submitted", "timeout"]
    action: FormAction | None = None
    values: Mapping[str, object] = {}
    message: str | None = None
    """The user's next message, when it was the answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """The question with which a run ended."""

    tool_call_id: str
    """Names the call to which the answer belongs; empty when the run did not name it."""
    text: str
    """The whole question: the answer of its turn."""
    definition: FormDefinition
    snapshot: str | None = None
    """Raw JSON text of the session snapshot in which the question is open."""


class FormState(StrEnum):
    """The state of a form; every state except `open` is final."""

    OPEN = "open"
    SUBMITTED = "submitted"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class HumanInputForm:
    """A question that was stored with the end of its turn, and its answer as soon as there is one."""

    id: FormId
    token: str
    """A client with this token and the app's key may read and submit the form."""
    message_id: MessageId
    """The message that asks."""
    tool_call_id: str
    """Empty when the answer cannot reach the run as a tool's result."""
    definition: FormDefinition
    state: FormState
    expires_at: int
    """Unix seconds."""
    answer: FormAnswer | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A form as it was filled in."""

    action_id: str
    values: JsonObject
