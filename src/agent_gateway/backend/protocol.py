"""Wire models of the run protocol: lenient when reading, exact when sending.

docs/design/run-protocol.md has the protocol in words.

Structs for reading keep inner JSON as `msgspec.Raw` until it is needed: only the envelope of a text delta is
parsed, and a session snapshot stays the bytes that arrived.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from agent_gateway.backend.lenient import as_dict, as_str, loads
from agent_gateway.backend.sse import Frame
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.text import clean_text
from agent_gateway.errors import BackendGarbage

TERMINAL: Final = frozenset({"run_succeeded", "run_failed", "run_cancelled"})
"""Event types that end a run. The first one counts; anything after it is ignored."""

Cursors = tuple[str, str]
"""A resume point of a run: the last two cursors seen. The log is read again from the first of them, so
that the next event has to be the second one, and a trimmed log shows as a gap (R5)."""

START: Final[Cursors] = ("", "")

EMPTY_OBJECT: Final = msgspec.Raw(b"{}")


class RunEvent(msgspec.Struct):
    """The envelope of one run event."""

    type: str = ""
    id: str = ""
    """The backend's cursor of this event."""
    data: msgspec.Raw = EMPTY_OBJECT
    agent_message_delta: Any = msgspec.UNSET
    """Text delta of newer backends: a string or null; UNSET when the backend has no such key."""


_event_decoder: Final = msgspec.json.Decoder(RunEvent)


def decode_event(data: bytes, frame_id: bytes = b"") -> RunEvent:
    """One run event from the data of its SSE frame; without an id, it gets the id of the frame.

    Raises BackendGarbage when the data is not a JSON object, or when there is no id at all.
    """
    try:
        event = _event_decoder.decode(data)
        if not data.isascii():
            data.decode()  # msgspec does not look at the bytes inside a Raw
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = _repaired(data)
    if not event.id:
        event.id = frame_id.decode(errors="replace")
    if not event.id:
        raise BackendGarbage("a run event has no id")
    return event


def decode_usual_events(frames: Sequence[Frame]) -> list[RunEvent] | None:
    """The same for frames whose events have all that is usual; None for others.

    One call decodes all of them.
    """
    texts = [data for _, _, data in frames]
    if b"" in texts:
        return None
    lines = b"\n".join(texts)
    try:
        events = _event_decoder.decode_lines(lines)
        if not lines.isascii():
            lines.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return events if len(events) == len(frames) and all(event.id for event in events) else None


def _repaired(data: bytes) -> RunEvent:
    """An event that msgspec refuses: with lone surrogates or NaN, as Python writes them, or broken UTF-8.

    Surrogates stay: the other half of a pair may be in the next event.
    """
    try:
        event = as_dict(loads(data.decode(errors="replace")))
        inner = json.dumps(event["data"]).encode() if "data" in event else b"{}"
    except (ValueError, RecursionError):
        # Not chained: the error holds the whole text, which may hold secrets.
        raise BackendGarbage("a run event is not JSON") from None
    kind = event.get("type")
    if not isinstance(kind, str):
        raise BackendGarbage("a run event is not an object with a type")
    return RunEvent(
        type=clean_text(kind),
        id=clean_text(as_str(event.get("id"))),
        data=msgspec.Raw(inner),
        agent_message_delta=event.get("agent_message_delta", msgspec.UNSET),
    )


class Layer(msgspec.Struct, omit_defaults=True):
    """One layer of a composition. Type ids and configs are the app template's business."""

    name: str
    type: str | msgspec.UnsetType = msgspec.UNSET
    deps: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    metadata: Mapping[str, object] | msgspec.UnsetType = msgspec.UNSET
    config: Any = msgspec.UNSET
    """UNSET (falsy) when the template has no such key; a null that was written is sent as null."""


class Composition(msgspec.Struct):
    """The agent as an ordered list of layers; `schema_version` is the generation it is written in."""

    schema_version: int
    layers: list[Layer]


class OnExit(msgspec.Struct):
    """What happens to the layers when the run exits: `suspend` keeps the session resumable."""

    default: str = "suspend"
    layers: dict[str, str] = {}


class CreateRunRequest(msgspec.Struct, omit_defaults=True):
    """Body of POST /runs: as it is composed, or in the form of a generation (see `generations`)."""

    composition: Composition
    session_snapshot: msgspec.Raw | None = None
    deferred_tool_results: Mapping[str, object] | None = None
    idempotency_key: str | None = None
    metadata: Mapping[str, object] = {}
    on_exit: OnExit | None = None


OnEvents = Callable[[list[RunEvent]], object]
"""Takes the events of one read; what it returns is ignored."""


class Backend(Protocol):
    """The interface that the runner drives: the HTTP client or the embedded backend.

    All methods raise errors.BackendError and no foreign errors.
    """

    @property
    def outlives_process(self) -> bool:
        """True when runs go on without the process that created them; not so for those that live in it."""
        ...

    async def takes_files(self) -> bool:
        """Whether it declares that it takes PDFs and texts of a message with their bytes (`shown_files`)."""
        ...

    async def create_run(self, request: CreateRunRequest) -> RunId:
        """Start a run. Sends again only when it is proven that nothing was sent, or that no run was made.

        Raises TurnError, too, when the request cannot be put into the backend's form.
        """
        ...

    async def stream(self, run_id: RunId, on_events: OnEvents, after: Cursors = START) -> None:
        """Hand over the events of a run after a resume point as they arrive; return behind the terminal one.

        After a cut the stream is opened again from the cursor. Raises RunLost, RunGap, or BackendUnreachable
        when that fails for longer than the budget; and whatever `on_events` raises. Nothing is handed over
        once this has returned or raised.
        """
        ...

    async def cancel(self, run_id: RunId) -> None:
        """Ask the backend to cancel a run; only the stream says how it ended.

        A run that has finished, is unknown or cannot be cancelled here is not an error.
        """
        ...

    async def aclose(self) -> None:
        """Release connections and tasks."""
        ...
