"""The four writes that every turn makes, of many turns at once: begin, arm, running, finish; and its lease.

Each is one statement of the driver (on SQLite one function), for as many turns as are due in the same moment,
and each turn has its own result. These writes do the common case only. Under the same locks they look whether
it is one. If not they write nothing for that turn, and its caller takes the transaction that decides every
case: a busy conversation, a question, another version of the app, files, limits, a stop, a deletion.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from agent_gateway.domain.turns import Step
from agent_gateway.store.db.group_commit import GroupCommit
from agent_gateway.store.db.shielded import ShieldedTasks


class NewMessage(NamedTuple):
    """A message that may begin a turn at once."""

    task: str
    message: str
    conversation: str
    starts: bool
    """Whether it starts that conversation."""
    app: str
    version: str
    end_user: str
    """The id of the end user, if this message is the first of them."""
    external_id: str
    name: str
    naming: str
    introduction: str
    inputs: str
    """JSON; of a message in an existing conversation those that were sent with it."""
    query: str
    files: str
    """JSON."""
    key: str | None
    body_hash: str | None
    trace_id: str | None
    trace_session_id: str | None
    request_id: str | None
    traceparent: str | None


class Begun(NamedTuple):
    """A turn that was begun: planned, and ours."""

    now: datetime
    snapshot: str | None
    inputs: str
    """Those of the conversation, as JSON."""


class OwnedTurn(NamedTuple):
    """A turn of ours, to be written under this epoch."""

    task: str
    epoch: int
    run: str = ""
    """The id of its run, once it is known."""


class Running(NamedTuple):
    """A turn of ours that is not over."""

    stop_asked: bool


class TurnEnd(NamedTuple):
    """The end of a turn of ours."""

    task: str
    epoch: int
    conversation: str
    answer: str
    marks: bytes
    usage: str | None
    """JSON."""
    snapshot: str | None
    finish_reason: str | None
    outcome: str
    error_code: str | None
    cause: str | None
    """JSON."""
    end_position: int
    may_name: bool
    """Whether the app names conversations whose name is open."""
    steps: Sequence[Step]


class CommonWrites(Protocol):
    """The writes on one of the two databases. The results have the order of the arguments.

    None and False say that nothing was written for that turn. All raise StoreUnavailable and StoreRejected.
    """

    async def begin(self, messages: Sequence[NewMessage]) -> list[Begun | None]:
        """Begin turns (R3). No two messages have the same conversation, or the same key."""
        ...

    async def arm(self, owned: Sequence[OwnedTurn]) -> list[bool]:
        """`planned → sending` (R4)."""
        ...

    async def mark_running(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """`sending → running` (R4)."""
        ...

    async def finish(self, ends: Sequence[TurnEnd]) -> list[bool]:
        """`running → ended` (R7)."""
        ...

    async def renew(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """Renew leases; None for turns that are not ours (R6). Waits for locked rows."""
        ...


class CommonPath:
    """The same for one turn at a time: those that come in the same moment are written together."""

    def __init__(self, writes: CommonWrites, shielded: ShieldedTasks) -> None:
        self.begin = GroupCommit(writes.begin, shielded, of=_of_message, size=_size_of_message)
        self.arm = GroupCommit(writes.arm, shielded, of=_of_turn)
        self.mark_running = GroupCommit(writes.mark_running, shielded, of=_of_turn)
        self.finish = GroupCommit(writes.finish, shielded, of=_of_end, size=_size_of_end)
        self.renew = writes.renew


def _of_message(message: NewMessage) -> tuple[object, ...]:
    if message.key is None:
        return (message.conversation,)
    return message.conversation, (message.app, message.external_id, message.key)


def _size_of_message(message: NewMessage) -> int:
    return len(message.query) + len(message.inputs) + len(message.files)


def _of_turn(turn: OwnedTurn) -> tuple[str]:
    return (turn.task,)


def _of_end(end: TurnEnd) -> tuple[str]:
    return (end.conversation,)


def _size_of_end(end: TurnEnd) -> int:
    steps = sum(len(step.thought) + len(step.tool_input) + len(step.observation) for step in end.steps)
    return len(end.answer) + len(end.snapshot or "") + steps
