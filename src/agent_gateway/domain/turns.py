"""Turns, and what belongs to them. Pure data: no SQL, no HTTP, no clock."""

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from agent_gateway.apps.config import AppConfig
from agent_gateway.domain.files import InputFile
from agent_gateway.domain.human_input import HumanInputForm
from agent_gateway.domain.ids import AppId, AppVersionId, ConversationId, MessageId, RunId, TaskId
from agent_gateway.json_types import JsonObject


class TurnState(StrEnum):
    """The state of a turn's row (docs/design/durability.md, Rows)."""

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


class TakenFrom(StrEnum):
    """Where a process got a turn from that it did not begin itself."""

    QUEUE = "queue"
    """No process has worked on it yet."""
    RELEASED = "released"
    """From a process that stops."""
    DEAD = "dead"
    """From a process whose lease ran out."""


@dataclass(frozen=True, slots=True)
class App:
    """One published agent: its identity and the immutable version a turn is pinned to."""

    id: AppId
    version_id: AppVersionId
    config: AppConfig
    slug: str = ""
    """The name an operator gives it; for logs."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller: an app and its end user (the client's own identifier)."""

    app: App
    user: str


@dataclass(frozen=True, slots=True)
class Trace:
    """Ids by which a turn is found in the logs of clients, proxies, agents; empty where there is none."""

    id: str = ""
    """Given by the client, and passed on to the agent."""
    session_id: str = ""
    """The same for what the client counts as a session."""
    request_id: str = ""
    """Of the HTTP request that began the turn."""
    parent: str = ""
    """A `traceparent` (W3C Trace Context): of the turn's first span if it is traced, else of that request."""


NO_TRACE: Final = Trace()


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """The request of a client in one POST /chat-messages."""

    query: str
    inputs: JsonObject
    files: list[InputFile]
    conversation_id: ConversationId | None = None
    idempotency_key: str | None = None
    auto_name: bool = True
    """Whether the app may name the conversation, if this turn starts one."""
    trace: Trace = NO_TRACE


class Turn(msgspec.Struct, frozen=True):
    """A turn that has started: everything that its runner and the frames of its events need."""

    task_id: TaskId
    conversation_id: ConversationId
    message_id: MessageId
    created_at: int
    """Unix seconds of the message row; every event carries it."""
    app: App
    user: str
    query: str
    inputs: JsonObject
    files: list[InputFile]
    snapshot: str | None
    """Raw JSON text of the session snapshot from which this turn continues."""
    epoch: int
    """Fencing number of this ownership: a write under another epoch changes nothing (I9)."""
    fold_version: int
    """The version of the fold that numbers its events, in every process (R17)."""
    seconds_left: float
    """Until the turn's deadline."""
    state: TurnState = TurnState.PLANNED
    """The state of the row when it was read."""
    run_id: RunId | None = None
    stop_asked: bool = False
    checkpoint: bytes | None = None
    """The whole state of the fold at some point of the run, if one was stored (R5)."""
    runnable: bool = True
    """False for a turn that must end without another run (R11)."""
    form: HumanInputForm | None = None
    """The form whose answer this turn carries."""
    adoptions: int = 0
    """How many processes died with it."""
    taken: TakenFrom | None = None
    """Where this process got it from, when it was adopted."""
    trace: Trace = NO_TRACE

    @property
    def opening(self) -> int:
        """The number of events before those of the run, which are numbered after them."""
        return 0 if self.form is None else 1


@dataclass(frozen=True, slots=True)
class AnsweredTurn:
    """A turn and its answer: everything that the auxiliary runs about it get."""

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
    """One reasoning segment or one tool call of a turn, in its current state."""

    number: int
    """1, 2, 3 … in the order in which the steps were opened."""
    position: int
    """Position of the turn event that last announced it."""
    thought: str = ""
    tool: str = ""
    tool_input: str = ""
    observation: str = ""


def step_id(message_id: str, number: int) -> str:
    """The public id of a step. It is derived, so that every fold of a run gives the same bytes."""
    return str(uuid.uuid5(uuid.UUID(message_id), f"step-{number}"))
