"""Turn events, in the gateway's own words (domain, not wire).

Each has a position, which is the SSE `id:` of its frame. Exactly one terminal event, MessageEnd or
TurnFailed, ends a turn (I3). The wire names are in `routes/streams/frames.py`.

`Result` is a whole ended turn. Every event that follows from a run's end is rendered from it, both in the
process that ran the turn and in one that read the rows (R2).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from typing import Final

import msgspec

from agent_gateway.causes import Cause
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.human_input import HumanInputForm, Question
from agent_gateway.domain.turns import Outcome, Step, Usage

GATEWAY_REPLACE: Final = 1_000_000_001
"""Position of the whole stored text when the gateway itself ended the turn (R1)."""
GATEWAY_END: Final = 1_000_000_002
"""Position of the terminal event when the gateway itself ended the turn (R1)."""
MAX_CHUNK: Final = 32_768
"""Characters in one answer event. Escaped to ASCII, they take at most 384 KiB of a 512 KiB line."""


class LLMChunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer, at most MAX_CHUNK characters."""

    position: int
    text: str


class AgentThought(msgspec.Struct, frozen=True):
    """A step was opened, grew or got its result; always the whole step."""

    position: int
    step: Step


class MessageReplace(msgspec.Struct, frozen=True, gc=False):
    """Replaces the answer so far: the reader cannot continue from its own text."""

    position: int
    text: str
    reason: str


class MessageFile(msgspec.Struct, frozen=True):
    """The agent made a file, and the file is stored."""

    position: int
    file: StoredFile


class ClosingMessage(msgspec.Struct, frozen=True, gc=False):
    """The whole answer once more. Only app mode `agent` shows it; every mode reserves its position."""

    position: int
    text: str


class FormAnswered(msgspec.Struct, frozen=True):
    """First event of a turn that carries a human's answer, or the news that nobody answered."""

    position: int
    form: HumanInputForm


class HumanInputRequired(msgspec.Struct, frozen=True):
    """The agent asked a human: the form of its question."""

    position: int
    form: HumanInputForm


class MessageEnd(msgspec.Struct, frozen=True):
    """The answer is complete and stored."""

    position: int
    usage: Usage
    files: tuple[StoredFile, ...] = ()
    """The files that the agent made."""
    finish_reason: str | None = None
    """Why the model stopped answering; None when that is not known."""


class TurnFailed(msgspec.Struct, frozen=True, gc=False):
    """The turn failed; `code` is a key of errors.FAILURES."""

    position: int
    code: str


TurnEvent = (
    LLMChunk
    | AgentThought
    | MessageReplace
    | MessageFile
    | ClosingMessage
    | FormAnswered
    | HumanInputRequired
    | MessageEnd
    | TurnFailed
)


def gateway_end(files: int) -> int:
    """Position of the terminal event of an end that the gateway made, after this number of files.

    The files follow the whole stored text, and the closing message keeps its position.
    """
    return GATEWAY_REPLACE + files + 2 if files else GATEWAY_END


def split_text(text: str, position: int) -> list[LLMChunk]:
    """A text as chunks, numbered from `position` on: the fixed rule for a text too long for one chunk."""
    return [
        LLMChunk(position + number, text[start : start + MAX_CHUNK])
        for number, start in enumerate(range(0, len(text), MAX_CHUNK))
    ]


@dataclass(frozen=True, slots=True)
class Result:
    """The output of a turn and its end: written by `finish`, read back for late readers."""

    outcome: Outcome
    chunks: Sequence[LLMChunk]
    steps: tuple[Step, ...]
    """Each with the position of the event that last announced it."""
    end_position: int
    """Position of the terminal event; from GATEWAY_END on when the gateway made the end itself."""
    error_code: str | None = None
    """Key of errors.FAILURES when the outcome is failed."""
    usage: Usage | None = None
    finish_reason: str | None = None
    """Why the model stopped answering: stop, length, content_filter …; None when that is not known."""
    snapshot: str | None = None
    """Raw JSON text of the new session snapshot; None leaves the old one in place."""
    question: Question | None = None
    """The question of the run, until it is stored as `form`."""
    form: HumanInputForm | None = None
    """The form of the question with which the turn ended. Its position is the third from the end."""
    answered: HumanInputForm | None = None
    """The form whose answer the turn carried. Its event has position 1."""
    files: tuple[StoredFile, ...] = ()
    """The stored files that the agent made, each with the position of its event."""

    cause: Cause | None = field(default=None, compare=False)
    """Why it failed, for the operator; None where the rows were read."""
    text: str | None = field(default=None, compare=False)
    """The whole text of the answer, where it is known already."""

    @property
    def answer(self) -> str:
        """The whole text of the answer."""
        if self.text is not None:
            return self.text
        return "".join([chunk.text for chunk in self.chunks])


@dataclass(frozen=True, slots=True)
class Endings:
    """Both ends that a turn can have. Its commit picks one, because only then it is known which is right."""

    normal: Result
    if_stopped: Result
    """When a caller asked to stop before the commit (R9)."""

    @classmethod
    def always(cls, result: Result) -> "Endings":
        """The same end, whether or not a stop was asked for."""
        return cls(result, result)


def rest_of(result: Result, after: int) -> list[TurnEvent]:
    """The events of an ended turn beyond position `after`; empty when there are none (R13)."""
    return list(events_after(result, after))


def events_after(result: Result, after: int) -> Iterator[TurnEvent]:
    """`rest_of`, but each event is made only when it is read: an answer may have a million chunks."""
    if after >= result.end_position:
        return
    others = _others(result)
    last: TurnEvent | None = None
    first = bisect_right(result.chunks, after, key=_position)
    chunks = (result.chunks[number] for number in range(first, len(result.chunks)))
    for last in merge(chunks, (event for event in others if event.position > after), key=_position):
        yield last
    seen = max((event.position for event in (*result.chunks[-1:], *others)), default=0)
    if result.end_position >= GATEWAY_END and seen < after < GATEWAY_REPLACE:
        # This reader has more of the run than was stored: its text must shrink.
        yield (last := MessageReplace(GATEWAY_REPLACE, result.answer, "turn_ended_early"))
    for file in result.files:
        if file.position > after:
            yield (last := MessageFile(file.position, file))
    if result.outcome is Outcome.FAILED:
        yield TurnFailed(result.end_position, result.error_code or "internal_server_error")
        return
    if result.form is not None and after < result.end_position - 2:
        yield (last := HumanInputRequired(result.end_position - 2, result.form))
    if after < result.end_position - 1 and not isinstance(last, MessageReplace):
        yield ClosingMessage(result.end_position - 1, result.answer)
    yield MessageEnd(result.end_position, result.usage or Usage(), result.files, result.finish_reason)


def _others(result: Result) -> list[FormAnswered | AgentThought]:
    """The events between the chunks, in order."""
    others: list[FormAnswered | AgentThought] = [AgentThought(step.position, step) for step in result.steps]
    if result.answered is not None:
        others.append(FormAnswered(1, result.answered))
    others.sort(key=_position)
    return others


def _position(event: TurnEvent) -> int:
    return event.position
