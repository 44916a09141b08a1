"""One run, as this process sees it: the events that are in the log, and those on their way there.

An event reaches readers only once it is in the log, so what any of them has seen can be read in every
process, whatever happens to this one. It is encoded once, and every reader gets the same bytes. Readers are
called when events were logged. They hold nothing but a cursor, so any number of them may follow a run, leave
it and come back.
"""

import asyncio
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from agent_gateway.backend.embedded.runs.outcomes import Cancellation, Ending, RunFailed
from agent_gateway.backend.protocol import TERMINAL, CreateRunRequest
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.run_log import Batch, HeldRun, NewRun, Reading, RunStatus
from agent_gateway.domain.text import clean_text
from agent_gateway.errors import BackendError

FROM_START: Final = 0
BATCH_BYTES: Final = 256 * 1024
"""From this size on a batch takes no further event."""
EVENT_OVERHEAD: Final = 300  # bytes of Python objects around one event, roughly

_STATUSES: Final[dict[str, RunStatus]] = {
    "run_succeeded": "succeeded",
    "run_failed": "failed",
    "run_cancelled": "cancelled",
}
_NO_TEXT: Final = frozenset({b"null", b'""'})
_TOOL: Final = re.compile(rb'"(?:builtin-)?tool-call"|"(?:function|output)_tool_call"')


class LoggedEvent(NamedTuple):
    """One run event in the form that its readers get."""

    number: int
    """Its place in the run; the first event has 1."""
    id: str
    """The cursor: `<ms>-<number>`."""
    type: str
    body: bytes
    """The whole envelope as one line of JSON."""


# Not a decoder of JSON: a text may hold half a character, which JSON of other makers does not.
_ENVELOPE: Final = re.compile(rb'\{"id":"([^"]+)","run_id":"[^"]+","created_at":"([^"]+)","type":"([^"]+)"')


def parse_cursor(text: str) -> int:
    """The number in the cursor `<ms>-<number>`; raises ValueError when it is not one."""
    milliseconds, _, number = text.partition("-")
    int(milliseconds)
    return int(number or 0)


class Run:
    """One run: its status and its events. The first terminal event ends it; nothing is appended after it."""

    def __init__(self, run_id: RunId, clock: Callable[[], float], due: Callable[["Run"], None]) -> None:
        """`due` is called when it has something to be logged."""
        self.id = run_id
        self.epoch = 0
        """Under which this process owns it; 0 when it does not."""
        self.status: RunStatus = "running"
        """What the log says."""
        self.error: str | None = None
        self.events: list[LoggedEvent] = []
        """Those in the log."""
        self.size = 0
        self.created_at = self.updated_at = ""
        self.lost_at: float | None = None
        """When it was first seen that its owner had not renewed its lease: the time of the event loop."""
        self.users = 0
        """Readers and others that need it here."""
        self.restartable = False
        """Whether it may be started again if its process dies."""
        self.task: asyncio.Task[None] | None = None
        self.began = time.monotonic()
        self.context = copy_context()
        """Of the request that began it here: its log lines carry the ids of that."""
        self._clock = clock
        self._due = due
        self._readers: list[Callable[[Sequence[LoggedEvent]], None]] = []
        self._broken: BackendError | None = None
        self._waiting: list[LoggedEvent] = []
        self._sent: Batch | None = None
        """What is on its way to the log. After a failure the very same is tried again."""
        self._keeps_request = False
        """Whether the log holds what is needed to start it again."""
        self._ending: RunStatus = "running"
        """Its status once all that waits is logged."""
        self._last_ms = 0
        self._asked: Ending | None = None

    # -- what it says, when this process owns it ----------------------------------------------------------

    def new(self, request: CreateRunRequest, stored: bytes | None) -> NewRun:
        """What begins it in the log; `stored` is kept there as long as it can be started again with it."""
        self.restartable = self._keeps_request = stored is not None
        event = self._make("run_started", b"{}")
        conversation = request.metadata.get("conversation_id")
        return NewRun(
            id=self.id,
            key=_plain(request.idempotency_key),
            conversation=_plain(conversation) if isinstance(conversation, str) else None,
            request=stored,
            data=event.body,
        )

    def begun(self, data: bytes) -> None:
        """It was begun, and is ours."""
        self.epoch = 1
        self._take_in(data)
        self.created_at = self.updated_at

    def own(self, epoch: int, *, restartable: bool) -> None:
        """It was taken over, and all of its events are here."""
        self.epoch = epoch
        self.restartable = self._keeps_request = restartable
        self._asked = None

    def disown(self) -> None:
        """Another process owns it now: what is not in the log was never said."""
        self.epoch = 0
        self._waiting.clear()
        self._sent, self._ending = None, self.status

    @property
    def held(self) -> HeldRun:
        """It, as the log names it."""
        return HeldRun(self.id, self.epoch)

    @property
    def open(self) -> bool:
        """Whether this process owns it and it has not said how it ends."""
        return bool(self.epoch) and self._ending == "running"

    @property
    def has_waiting(self) -> bool:
        """Whether something of it is not in the log yet."""
        return bool(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """The size of that."""
        return sum(len(event.body) for event in self._waiting)

    def emit(self, data: bytes, delta: bytes) -> "Run":
        """Say one agent event: its JSON, and that of its text delta or null. Awaitable (see Emit)."""
        if self.restartable and (delta not in _NO_TEXT or _TOOL.search(data)):
            self.restartable = False
        self._say("pydantic_ai_event", data, b',"agent_message_delta":' + delta)
        return self

    def __await__(self) -> Generator[object, None, None]:
        """Wait until all that was said so far is in the log."""
        return self._until_logged(len(self.events) + len(self._waiting)).__await__()

    async def _until_logged(self, number: int) -> None:
        while len(self.events) < number and self.epoch:
            await self._next(lambda: len(self.events) >= number)

    def succeed(self, data: bytes) -> None:
        """End with `run_succeeded` and its JSON data, unless the run has ended."""
        self._say("run_succeeded", data)

    def fail(self, failure: RunFailed) -> None:
        """End with `run_failed`, unless the run has ended."""
        if self.open:
            self.error = clean_text(failure.error)
        data: dict[str, object] = {"error": failure.error, "reason": failure.reason, "cause": failure.cause}
        if failure.usage is not None:
            data["usage"] = failure.usage
        self._say("run_failed", msgspec.json.encode(data))

    def ask_to_end(self, ending: Ending) -> None:
        """Set how the run will end after its task is cancelled; only the first request counts."""
        if self._asked is None:
            self._asked = ending

    def end_as_asked(self, leftovers: Mapping[str, object] | None = None) -> None:
        """End a run whose task is gone as `ask_to_end` asked, unless it has ended.

        Leftovers belong to a cancelled run only: after a failure the previous snapshot stays.
        """
        match self._asked:
            case Cancellation() as asked:
                data = {"reason": asked.reason, "message": asked.message, **(leftovers or {})}
                self._say("run_cancelled", msgspec.json.encode(data))
            case RunFailed() as failure:
                self.fail(failure)
            case None:
                self.fail(RunFailed("the run was interrupted"))

    def _say(self, event_type: str, data: bytes, extra: bytes = b"") -> None:
        if not self.open:
            return
        self._waiting.append(self._make(event_type, data, extra))
        if event_type in TERMINAL:
            self._ending = _STATUSES[event_type]
        self._due(self)

    def _make(self, event_type: str, data: bytes, extra: bytes = b"") -> LoggedEvent:
        now = self._clock()
        # Another process may have said the last one, whose idea of the time is a little ahead.
        self._last_ms = max(self._last_ms, int(now * 1000))
        number = len(self.events) + len(self._waiting) + 1
        event_id = f"{self._last_ms}-{number}"
        envelope = (
            f'{{"id":"{event_id}","run_id":"{self.id}","created_at":"{_text_of(now)}","type":"{event_type}"'
        )
        if b"\n" in data:
            # Between values only, for a string has none: an envelope is one line.
            data = data.replace(b"\n", b" ")
        body = b"".join((envelope.encode(), b',"data":', data, extra, b"}"))
        return LoggedEvent(number, event_id, event_type, body)

    # -- the way into the log -----------------------------------------------------------------------------

    def batch(self) -> Batch:
        """What is to be appended next. The same again until it is `logged`."""
        if self._sent is None:
            count = size = 0
            for event in self._waiting:
                count += 1
                size += len(event.body)
                if size >= BATCH_BYTES:
                    break
            taken = self._waiting[:count]
            status = _STATUSES.get(taken[-1].type, "running")
            self._sent = Batch(
                run_id=self.id,
                epoch=self.epoch,
                first=taken[0].number,
                count=count,
                data=b"\n".join([event.body for event in taken]),
                status=status,
                error=self.error if status == "failed" else None,
                drop_request=self._keeps_request and (status != "running" or not self.restartable),
            )
        return self._sent

    def logged(self, batch: Batch) -> None:
        """This batch is in the log: its readers get it now."""
        if self._sent is not batch:
            return
        if batch.drop_request:
            self._keeps_request = False
        taken, self._waiting = self._waiting[: batch.count], self._waiting[batch.count :]
        self._sent = None
        self._tell(taken)

    # -- what the log says --------------------------------------------------------------------------------

    def learn(self, reading: Reading) -> None:
        """Take in what the log says beyond what is here."""
        self.created_at = _text_of(reading.created_at.timestamp())
        self.error = reading.error
        for piece in reading.pieces:
            self._take_in(piece)

    def _take_in(self, piece: bytes) -> None:
        events = [_read(body) for body in piece.split(b"\n")]
        # A batch is read whole; some of it may be known.
        if fresh := [event for event in events if event.number > len(self.events)]:
            self._tell(fresh)

    def _tell(self, events: Sequence[LoggedEvent]) -> None:
        self.events += events
        self.size += sum(len(event.body) for event in events) + EVENT_OVERHEAD * len(events)
        last = events[-1]
        self._last_ms = int(last.id.partition("-")[0])
        self.updated_at = _envelope(last.body)[1]
        if last.type in TERMINAL:
            self.status = self._ending = _STATUSES[last.type]
        for reader in tuple(self._readers):
            reader(events)

    # -- its readers --------------------------------------------------------------------------------------

    def after(self, number: int) -> list[LoggedEvent]:
        """All events after this number that are in the log and known here."""
        return self.events[max(0, number) :]

    async def next_batch(self, number: int) -> list[LoggedEvent]:
        """Wait for events after this number; empty when the run has ended and none are left.

        Raises BackendError when it can no longer be read here.
        """
        await self._next(lambda: bool(self.after(number)))
        return self.after(number)

    async def ended(self) -> None:
        """Wait until the run has ended. Raises BackendError when it can no longer be read here."""
        await self._next(lambda: False)

    async def _next(self, is_there: Callable[[], bool]) -> None:
        """Wait for this; not beyond the end of the run, or of what can be read of it."""
        grown = asyncio.Event()
        with self._calling(lambda _: grown.set()):
            while not is_there() and self.status == "running":
                if self._broken is not None:
                    raise self._broken
                grown.clear()
                await grown.wait()

    async def read(self, number: int, take: Callable[[Sequence[LoggedEvent]], object]) -> None:
        """Hand over the events after this number, later ones once they are logged; return when the run ends.

        What `take` raises ends the reading, not the run. Raises BackendError when it can no longer be read.
        """
        if batch := self.after(number):
            take(batch)
        if self.status != "running":
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def hear(events: Sequence[LoggedEvent]) -> None:
            if ended.done():
                return
            try:
                if self._broken is not None:
                    raise self._broken  # noqa: TRY301 - to the reader, as the rest
                fresh = (
                    events
                    if events and events[0].number > number
                    else [event for event in events if event.number > number]
                )
                if fresh:
                    take(fresh)
            except Exception as error:  # noqa: BLE001 - it is raised to the reader
                ended.set_exception(error)
            else:
                if self.status != "running":
                    ended.set_result(None)

        with self._calling(hear):
            if self._broken is not None:
                raise self._broken
            await ended

    def break_off(self, error: BackendError) -> None:
        """It can no longer be read here: its readers are told so."""
        self._broken = error
        for reader in tuple(self._readers):
            reader([])

    @contextmanager
    def _calling(self, reader: Callable[[Sequence[LoggedEvent]], None]) -> Generator[None]:
        """Call the reader with the events that are logged meanwhile."""
        self._readers.append(reader)
        try:
            yield
        finally:
            self._readers.remove(reader)


def _read(body: bytes) -> LoggedEvent:
    event_id, _, event_type = _envelope(body)
    return LoggedEvent(parse_cursor(event_id), event_id, event_type, body)


def _envelope(body: bytes) -> tuple[str, str, str]:
    """Id, time and type of an event."""
    found = _ENVELOPE.match(body)
    assert found is not None
    event_id, created_at, event_type = found.groups()
    return event_id.decode(), created_at.decode(), event_type.decode()


def _text_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(text: str | None) -> str | None:
    """A name of somebody else's, as every database can store it."""
    return clean_text(text) if text else None
