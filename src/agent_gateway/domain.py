"""Ids and frozen records shared by every room. Pure data: no SQL, no HTTP, no clock."""

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, NewType

import msgspec
from uuid_utils.compat import uuid7

from agent_gateway.app_config import AppConfig, UploadMethod
from agent_gateway.filetypes import FileType

TenantId = NewType("TenantId", str)
AppId = NewType("AppId", str)
AppVersionId = NewType("AppVersionId", str)
KeyId = NewType("KeyId", str)
"""Names an API key to operators; it opens nothing."""
ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
TaskId = NewType("TaskId", str)
"""Public handle of a turn; the same UUID as the turn's row."""
FormId = NewType("FormId", str)
FileId = NewType("FileId", str)
RunId = NewType("RunId", str)
"""The backend's name for its execution of a turn; never shown to clients."""

FEEDBACK_CHARACTERS: Final = 16_384
"""Of what a user says about an answer: a page of a hundred is bounded by it."""
NAME_LENGTH: Final = 64
"""Characters of a conversation's name that was not given by its user."""

Generation = Literal[1, 2]
"""The version of the run protocol that a backend speaks: the `schema_version` of its compositions."""

ResponseMode = Literal["streaming", "blocking", "background"]
Rating = Literal["like", "dislike"]
"""What a user thought of an answer."""


def new_id() -> str:
    """A fresh time-ordered UUID in canonical text form."""
    return str(uuid7())


def canonical_uuid(text: str) -> str | None:
    """The canonical form of a UUID written in any usual way, or None when it is not one."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def clean_text(text: str) -> str:
    """Replace what JSONB and TEXT columns reject, NUL and lone surrogates, by U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        # Halves that belong together become their character; those that stand alone, U+FFFD.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def short_name(text: str, most: int = NAME_LENGTH) -> str:
    """A name for a conversation: the words of a text in one line, cut cleanly."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def clean_json(value: Any) -> Any:
    """`clean_text` on every string and key of a JSON value."""
    match value:
        case str():
            return clean_text(value)
        case list():
            return [clean_json(item) for item in value]
        case dict():
            return {clean_text(str(key)): clean_json(item) for key, item in value.items()}
        case _:
            return value


class TurnState(StrEnum):
    """Where a turn's row stands (docs/design/durability.md, Rows)."""

    QUEUED = "queued"
    PLANNED = "planned"
    SENDING = "sending"
    RUNNING = "running"
    ENDED = "ended"


class Outcome(StrEnum):
    """How an ended turn ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class FormOption(msgspec.Struct, frozen=True):
    """One choice of a select."""

    value: str
    label: str


class FormInput(msgspec.Struct, frozen=True):
    """A field of a form."""

    name: str
    kind: str
    """`paragraph`, `select` or any other kind that the agent and the front end agree on."""
    label: str
    required: bool = False
    options: tuple[FormOption, ...] = ()
    placeholder: str = ""
    default: Any = None
    """What a front end fills in at first; the gateway never does."""


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
    approval: dict[str, Any] | None = None
    """What is to be approved, when the agent said so; passed on as it is."""


class FormAnswer(msgspec.Struct, frozen=True):
    """What the run is told: the form as submitted, a message in its place, or that nobody answered."""

    status: Literal["submitted", "timeout"]
    action: FormAction | None = None
    values: dict[str, Any] = {}
    message: str | None = None
    """The user's next message, when that was the answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asked as it ended."""

    tool_call_id: str
    """Names the call that the answer belongs to; empty when the run did not say."""
    text: str
    """The whole question: the answer of its turn."""
    definition: FormDefinition
    snapshot: str | None = None
    """Raw JSON text of the session snapshot in which the question is open."""


class FormState(StrEnum):
    """Where a form stands; all but `open` are final."""

    OPEN = "open"
    SUBMITTED = "submitted"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Form:
    """A question that was stored with the end of its turn, and its answer once there is one."""

    id: FormId
    token: str
    """Lets whoever has it and the app's key read and submit the form."""
    message_id: MessageId
    """The message that asks."""
    tool_call_id: str
    """Empty when the answer can not be told to the run as a tool's result."""
    definition: FormDefinition
    state: FormState
    expires_at: int
    """Unix seconds."""
    answer: FormAnswer | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A form as it was filled in."""

    action_id: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class App:
    """One published agent: its identity and the immutable version a turn is pinned to."""

    id: AppId
    version_id: AppVersionId
    config: AppConfig


@dataclass(frozen=True, slots=True)
class Caller:
    """Who authenticated: an app and its end user (the client's own identifier)."""

    app: App
    user: str


class InputFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that comes with a query: a stored one, or only where somebody else has it."""

    type: FileType
    transfer_method: UploadMethod
    url: str = ""
    """Of a remote file. It is passed on as it is and never fetched."""
    upload_file_id: str = ""
    name: str = ""
    mime_type: str = ""
    size: int = 0
    """Bytes of a stored file; 0 when nobody knows."""


class StoredFile(msgspec.Struct, frozen=True):
    """A file whose bytes are in the file store, or one that is only linked."""

    id: FileId
    name: str
    type: FileType
    mime_type: str
    size: int
    position: int = 0
    """Of the turn event that announced it, when an agent made it."""
    url: str = ""
    """Where a linked file is: a tool made it, and its bytes are not in the file store."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Ids by which a client finds a turn again in what the agent logs; empty when it gave none."""

    id: str = ""
    session_id: str = ""


NO_TRACE: Final = Trace()


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a client asked for in one POST /chat-messages."""

    query: str
    inputs: dict[str, Any]
    files: list[InputFile]
    conversation_id: ConversationId | None = None
    idempotency_key: str | None = None
    auto_name: bool = True
    """Whether the app may name the conversation, if this begins one."""
    trace: Trace = NO_TRACE


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that has begun: what its runner and the frames of its events need."""

    task_id: TaskId
    conversation_id: ConversationId
    message_id: MessageId
    created_at: int
    """Unix seconds of the message row; every event carries it."""
    app: App
    user: str
    query: str
    inputs: dict[str, Any]
    files: list[InputFile]
    snapshot: str | None
    """Raw JSON text of the session snapshot this turn goes on from."""
    epoch: int
    """Fencing number of our ownership: a write under another epoch changes nothing (I9)."""
    fold_version: int
    """By which fold its events are numbered, whoever folds them (R17)."""
    seconds_left: float
    """Until the turn's deadline."""
    state: TurnState = TurnState.PLANNED
    """Where the row stood when this was read."""
    run_id: RunId | None = None
    stop_asked: bool = False
    checkpoint: bytes | None = None
    """Whole fold state at some point of the run, if one was stored (R5)."""
    runnable: bool = True
    """False for a turn that must be ended without being run again (R11)."""
    form: Form | None = None
    """The form whose answer this turn carries."""
    trace: Trace = NO_TRACE

    @property
    def opening(self) -> int:
        """How many events come before those of the run, which are numbered behind them."""
        return 0 if self.form is None else 1


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn and what was answered: all that is told to the small runs about it."""

    turn: Turn
    answer: str


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts and prices of one message; prices are decimal strings."""

    prompt_tokens: int = 0
    prompt_unit_price: str = "0"
    prompt_price_unit: str = "0"
    prompt_price: str = "0"
    completion_tokens: int = 0
    completion_unit_price: str = "0"
    completion_price_unit: str = "0"
    completion_price: str = "0"
    total_tokens: int = 0
    total_price: str = "0"
    currency: str = "USD"
    latency: float = 0.0
    time_to_first_token: float = 0.0
    time_to_generate: float = 0.0


class Step(msgspec.Struct, frozen=True, gc=False):
    """One reasoning segment or one tool call of a turn, as it stands now."""

    number: int
    """1, 2, 3 … in the order the steps were opened."""
    position: int
    """Position of the turn event that last announced it."""
    thought: str = ""
    tool: str = ""
    tool_input: str = ""
    observation: str = ""


def step_id(message_id: str, number: int) -> str:
    """The public id of a step: derived, so that every fold of a run gives the same bytes."""
    return str(uuid.uuid5(uuid.UUID(message_id), f"step-{number}"))


def made_file_id(message_id: str, number: int) -> FileId:
    """The id of a file that an agent made: derived, so that whoever stores it stores it once (R7)."""
    return FileId(str(uuid.uuid5(uuid.UUID(message_id), f"file-{number}")))


def input_file_id(message_id: str, number: int) -> str:
    """The public id of a remote file that came with a query, which has no other."""
    return str(uuid.uuid5(uuid.UUID(message_id), f"input-file-{number}"))
