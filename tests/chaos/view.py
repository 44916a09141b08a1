"""Records of what clients saw and did, made while things break and judged only afterwards."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["chat", "agent-chat", "agent"]
How = Literal["plain", "resuming", "background", "blocking"]
"""How a message is sent: as a stream without ids, with ids, in the background, or blocking."""

TERMINAL = ("message_end", "error")


@dataclass(frozen=True)
class Seen:
    """One event as a client saw it."""

    at: float
    position: int
    kind: str
    payload: dict[str, Any]


@dataclass
class Connection:
    """One response that a view read from."""

    replica: int
    opened: float
    closed: float = 0.0
    how: str = ""
    """How it ended: `ended` (cleanly), or what broke it."""


@dataclass
class View:
    """One reader's picture of a turn, over as many connections as it took."""

    mode: Mode
    ids: bool
    after: int = 0
    """The cursor that it began at."""
    events: list[Seen] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    gone: bool = False
    """A 204 told it that nothing is left."""

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].kind in TERMINAL

    @property
    def last_position(self) -> int:
        return self.events[-1].position if self.events else self.after

    @property
    def text(self) -> str:
        """The text that a client shows which appends chunks."""
        shown = ""
        for event in self.events:
            if event.kind == chunk_kind(self.mode):
                shown += event.payload["answer"]
            elif event.kind == "message_replace":
                shown = event.payload["answer"]
        return shown


def chunk_kind(mode: Mode) -> str:
    """The event that carries chunks of the answer."""
    return "message" if mode == "chat" else "agent_message"


@dataclass(frozen=True)
class Answered:
    """A status that a client got, and the error code of its body if there was one."""

    at: float
    replica: int
    request: str
    """`POST`, `GET` or `stop`."""
    status: int
    code: str = ""


@dataclass
class Sent:
    """One message that somebody wants to send, however many requests that takes."""

    query: str
    key: str
    talk: int
    """Number of the conversation."""
    began: float
    conversation_id: str | None = None
    """The conversation it was sent to; None makes a new one."""
    accepted: float | None = None
    task_ids: set[str] = field(default_factory=set)
    conversation_ids: set[str] = field(default_factory=set)
    views: list[View] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """Of blocking callers."""
    failures: list[str] = field(default_factory=list)
    """Error codes that blocking callers got as the turn's end."""
    answered: list[Answered] = field(default_factory=list)
    stop_asked: float | None = None
    stop_done: float | None = None
    """When the first stop was answered with success."""
    trouble: list[str] = field(default_factory=list)
    """Things that no client should meet: requests that were given up, statuses that make no sense."""
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has got the ids of turn and conversation."""

    @property
    def task_id(self) -> str | None:
        return next(iter(self.task_ids), None)

    def accept(self, at: float, task_id: str, conversation_id: str | None = None) -> None:
        """The gateway has named the turn."""
        self.accepted = min(at, self.accepted or at)
        self.task_ids.add(task_id)
        if conversation_id:
            self.conversation_ids.add(conversation_id)
            self.known.set()


def connections_of(sent: Sent) -> Iterator[tuple[View, Connection]]:
    """Every response that was read for a message."""
    for view in sent.views:
        for connection in view.connections:
            yield view, connection
