"""What an agent of your own gets and yields. docs/bring-your-own-agent.md shows how to serve one.

    from agent_gateway.agent import Turn

    async def agent(turn: Turn):
        yield f"You said: {turn.query}"

`agent-gateway backend --agent my_module:agent` serves it. Importing this module loads nothing else.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from uuid import uuid4


def _new_id() -> str:
    return uuid4().hex


class AgentError(Exception):
    """Raise it when the turn cannot be completed and you know why.

    The operator is shown the text, so it must hold no secret and no word of a user. Clients get a general
    error: `reason` is one of those in docs/design/run-protocol.md (`InvokeRateLimitError` …) and decides
    which. Of any other exception the operator learns only the type and the place.
    """

    def __init__(self, text: str, *, reason: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason


class Message(NamedTuple):
    """A message of an earlier turn."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class File:
    """A file that came with the user's message, or one that your agent made and yields.

    A file that you yield has `data` and a `media_type`; the gateway names and stores it. One that you get has
    what the app sends: the bytes of an image that a model is to see, the URL of any other file.
    """

    data: bytes = b""
    media_type: str = ""
    name: str = ""
    url: str = ""
    kind: str = ""
    """`image`, `document` … as the client named it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a human answered to the question with which the previous turn ended."""

    question_id: str
    """The `id` of the question."""
    status: Literal["submitted", "timeout"]
    """`timeout`: nobody answered in time."""
    action: str = ""
    """The id of the button; empty when the answer is a chat message, or when there is none."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was filled in, by the name of the field. The gateway has not checked it."""
    message: str = ""
    """The user's chat message, if the user wrote one instead of submitting the form."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what the user wants, and what is known of the conversation."""

    query: str
    """The user's words. With an `answer`, that answer in words."""
    history: tuple[Message, ...] = ()
    """The earlier turns, the oldest first."""
    state: dict[str, Any] = field(default_factory=dict)
    """A JSON object of yours. Change it: the next turn of the conversation gets it back.

    It is kept with the turn: not after a failure, and not of a turn that was stopped before it said anything.
    """
    instructions: str = ""
    """The `prefix` texts of the app's prompt layers: what is usually the system prompt."""
    files: tuple[File, ...] = ()
    """The files of the message, if a prompt layer of the app says `files: ${files}`."""
    answer: Answer | None = None
    """The answer to the question that the previous turn asked."""
    user_id: str = ""
    """The end user, as clients name them; empty if the app has no layer `execution_context`."""
    conversation_id: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    """The config of the app's layer `execution_context`: the way for inputs to get here."""
    auxiliary: bool = False
    """Whether the gateway asks for itself: for a name of the conversation, or for questions to suggest."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of reasoning. Pieces in a row are one step of the turn."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool is called: a step opens."""

    name: str
    args: Any = None
    """Any JSON."""
    id: str = field(default_factory=_new_id)
    """Names the call in its `ToolResult`."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call that was yielded before."""

    call_id: str
    content: Any
    """Any JSON."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a model used. Those of one turn are added up."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """An input of a question's form: a text, or a choice if it has options."""

    name: str
    label: str
    options: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """A button of a question's form."""

    id: str
    label: str
    style: Literal["primary", "default", "destructive"] = "default"


@dataclass(frozen=True, slots=True)
class Question:
    """Ask a human. It ends the turn: nothing that you would yield behind it is read.

    The answer comes with a later turn, in `Turn.answer`. Without actions the form has one to submit with.
    """

    text: str
    title: str = ""
    fields: tuple[Field, ...] = ()
    actions: tuple[Action, ...] = ()
    id: str = field(default_factory=_new_id)


Step = str | Thought | ToolCall | ToolResult | File | Usage | Question
"""What an agent may yield. A `str` is a piece of the answer."""

AgentFunction = Callable[[Turn], AsyncGenerator[Step, None]]
"""An agent: an async generator function that takes the turn."""
