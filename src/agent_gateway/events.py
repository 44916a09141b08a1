"""Turn events: what a turn says, in the gateway's own words (domain, not wire).

Each carries its position, the SSE `id:` of its frame. Exactly one terminal event, MessageEnd or
TurnFailed, ends a turn (I3). Wire names live in `routes/payloads.py`.

`Result` is a whole ended turn. Everything that follows from a run's end is rendered from it, by
whoever tells it: the process that ran the turn or one that read the rows (R2).
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import msgspec

from agent_gateway.domain import Form, Outcome, Question, Step, StoredFile, Usage

GATEWAY_REPLACE: Final = 1_000_000_001
"""Position of the stored text told as a whole when the gateway itself ended the turn (R1)."""
GATEWAY_END: Final = 1_000_000_002
"""Position of the terminal event when the gateway itself ended the turn (R1)."""
MAX_CHUNK: Final = 32_768
"""Characters in one answer event; escaped to ASCII that is at most 384 KiB of a 512 KiB line."""


class LLMChunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer, at most MAX_CHUNK characters."""

    position: int
    text: str


class AgentThought(msgspec.Struct, frozen=True):
    """A step was opened, grew or got its result; always the whole step."""

    position: int
    step: Step


class MessageReplace(msgspec.Struct, frozen=True, gc=False):
    """The answer so far is replaced: the reader's past can not be continued."""

    position: int
    text: str
    reason: str


class MessageFile(msgspec.Struct, frozen=True):
    """The agent made a file, and it is stored."""

    position: int
    file: StoredFile


class ClosingMessage(msgspec.Struct, frozen=True, gc=False):
    """The whole answer once more; only app mode `agent` shows it, every mode reserves its place."""

    position: int
    text: str


class FormAnswered(msgspec.Struct, frozen=True):
    """First event of a turn that carries a human's answer, or the news that there is none."""

    position: int
    form: Form


class HumanInputRequired(msgspec.Struct, frozen=True):
    """The agent asked a human: the form of its question."""

    position: int
    form: Form


class MessageEnd(msgspec.Struct, frozen=True):
    """The answer is complete and stored."""

    position: int
    usage: Usage
    files: tuple[StoredFile, ...] = ()
    """What the agent made."""


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
    """Position of the terminal event of an end that the gateway made, with so many files before it.

    They follow the stored text told as a whole, and leave the closing message its place.
    """
    return GATEWAY_REPLACE + files + 2 if files else GATEWAY_END


def split_text(text: str, position: int) -> list[LLMChunk]:
    """A text as chunks numbered from `position` on: the fixed rule for what is too long for one."""
    return [
        LLMChunk(position + number, text[start : start + MAX_CHUNK])
        for number, start in enumerate(range(0, len(text), MAX_CHUNK))
    ]


@dataclass(frozen=True, slots=True)
class Result:
    """What a turn produced and how it ended: written by `finish`, read back for late readers."""

    outcome: Outcome
    chunks: tuple[LLMChunk, ...]
    steps: tuple[Step, ...]
    """Each with the position of the event that last announced it."""
    end_position: int
    """Position of the terminal event; from GATEWAY_END on when the gateway made the end itself."""
    error_code: str | None = None
    """Key of errors.FAILURES when the outcome is failed."""
    usage: Usage | None = None
    snapshot: str | None = None
    """Raw JSON text of the new session snapshot; None leaves the old one in place."""
    question: Question | None = None
    """What the run asked; only until it is stored as `form`."""
    form: Form | None = None
    """The form of the question with which the turn ended. Its position is the third from the end."""
    answered: Form | None = None
    """The form whose answer the turn carried: told at position 1."""
    files: tuple[StoredFile, ...] = ()
    """What the agent made and is stored, each with the position of its event."""

    @property
    def answer(self) -> str:
        """The whole text of the answer."""
        return "".join(chunk.text for chunk in self.chunks)


def rest_of(result: Result, after: int) -> list[TurnEvent]:
    """The events of an ended turn beyond position `after`; empty when there are none (R13)."""
    if after >= result.end_position:
        return []
    told = _merged(result)
    last = told[-1].position if told else 0
    rest: list[TurnEvent] = list(told[bisect_right(told, after, key=lambda event: event.position) :])
    if result.end_position >= GATEWAY_END and last < after < GATEWAY_REPLACE:
        # This reader followed the run further than what was stored: its text must shrink.
        rest.append(MessageReplace(GATEWAY_REPLACE, result.answer, "turn_ended_early"))
    rest += [MessageFile(file.position, file) for file in result.files if file.position > after]
    if result.outcome is Outcome.FAILED:
        rest.append(TurnFailed(result.end_position, result.error_code or "internal_server_error"))
        return rest
    if result.form is not None and after < result.end_position - 2:
        rest.append(HumanInputRequired(result.end_position - 2, result.form))
    if after < result.end_position - 1 and not (rest and isinstance(rest[-1], MessageReplace)):
        rest.append(ClosingMessage(result.end_position - 1, result.answer))
    rest.append(MessageEnd(result.end_position, result.usage or Usage(), result.files))
    return rest


def _merged(result: Result) -> list[FormAnswered | LLMChunk | AgentThought]:
    told: list[FormAnswered | LLMChunk | AgentThought] = [
        *result.chunks,
        *(AgentThought(step.position, step) for step in result.steps),
    ]
    if result.answered is not None:
        told.append(FormAnswered(1, result.answered))
    told.sort(key=lambda event: event.position)
    return told
