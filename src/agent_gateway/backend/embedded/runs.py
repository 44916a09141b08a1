"""The runs of this process: their tasks, and an append-only, replayable log of events for each.

An event is encoded once, when it is appended; every reader gets the same bytes. Readers are called when an
event is appended. They hold nothing but a cursor, so any number of them may follow a run, leave it and come
back.
"""

import asyncio
import bisect
import logging
import time
import traceback
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, Self

import msgspec

from agent_gateway.backend.protocol import TERMINAL, CreateRunRequest
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Usage
from agent_gateway.errors import RunLost

logger = logging.getLogger(__name__)

Cursor = tuple[int, int]
Status = Literal["running", "succeeded", "failed", "cancelled"]
Emit = Callable[[bytes, bytes], None]
"""Takes the JSON of one agent event, and that of its text delta: null when it has none."""
Execute = Callable[[CreateRunRequest, Emit], Awaitable[bytes]]
"""Runs an agent and returns the JSON data of `run_succeeded`; raises RunFailed or RunInterrupted."""

FROM_START: Final[Cursor] = (0, -1)
KEEP_BYTES: Final = 32 * 1024 * 1024

_STATUSES: Final[dict[str, Status]] = {
    "run_succeeded": "succeeded",
    "run_failed": "failed",
    "run_cancelled": "cancelled",
}
_EVENT_OVERHEAD: Final = 300  # bytes of Python objects around one event, roughly


class Stopping(Exception):
    """No new run is accepted: the process is stopping."""


class RunFailed(Exception):
    """The run cannot be completed. Its texts reach readers of the run, so they hold no secrets.

    `cause` is what operators are told; give one if `error` repeats words of a user.
    """

    def __init__(self, error: str, reason: str | None = None, cause: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.reason = reason
        self.cause = error if cause is None else cause
        self.usage: Usage | None = None

    def with_usage(self, usage: Usage | None) -> Self:
        """The same failure, with what the run used before."""
        self.usage = usage
        return self


class RunInterrupted(Exception):
    """The run's task was cancelled. `leftovers` are the data that it leaves (session snapshot, usage)."""

    def __init__(self, leftovers: Mapping[str, object]) -> None:
        super().__init__("interrupted")
        self.leftovers = leftovers


class Cancellation(NamedTuple):
    """Why a run is to be cancelled, in the words of the caller."""

    reason: str | None
    message: str | None


Ending = Cancellation | RunFailed


class LoggedEvent(NamedTuple):
    """One run event in the form that its readers get."""

    cursor: Cursor
    id: str
    """The cursor in the form `<ms>-<seq>`."""
    type: str
    body: bytes
    """The whole envelope as one line of JSON."""


def parse_cursor(text: str) -> Cursor:
    """The cursor written as `<ms>-<seq>`; raises ValueError when it is not one."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence or 0)


class Run:
    """One run: its status and its log. The first terminal event ends it; nothing is appended after it."""

    def __init__(self) -> None:
        self.id = RunId(str(uuid.uuid4()))
        self.status: Status = "running"
        self.error: str | None = None
        self.began = time.monotonic()
        self.events: list[LoggedEvent] = []
        self.size = 0
        self._readers: list[Callable[[LoggedEvent], None]] = []
        self._last: Cursor = FROM_START
        self._asked: Ending | None = None
        self.created_at = self.updated_at = _now()
        self._append("run_started", b"{}")

    def emit(self, data: bytes, delta: bytes) -> None:
        """Append one agent event: its JSON, and that of its text delta or null."""
        self._append("pydantic_ai_event", data, b',"agent_message_delta":' + delta)

    def succeed(self, data: bytes) -> None:
        """End with `run_succeeded` and its JSON data, unless the run has ended."""
        self._append("run_succeeded", data)

    def fail(self, failure: RunFailed) -> None:
        """End with `run_failed`, unless the run has ended."""
        if self.status == "running":
            self.error = failure.error
        data: dict[str, object] = {"error": failure.error, "reason": failure.reason, "cause": failure.cause}
        if failure.usage is not None:
            data["usage"] = failure.usage
        self._append("run_failed", msgspec.json.encode(data))

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
                self._append("run_cancelled", msgspec.json.encode(data))
            case RunFailed() as failure:
                self.fail(failure)
            case None:
                self.fail(RunFailed("the run was interrupted"))

    def after(self, cursor: Cursor) -> list[LoggedEvent]:
        """All events after a cursor that exist now."""
        return self.events[bisect.bisect_right(self.events, cursor, key=lambda event: event.cursor) :]

    async def next_batch(self, cursor: Cursor) -> list[LoggedEvent]:
        """Wait for events after a cursor; empty when the run has ended and none are left."""
        grown = asyncio.Event()
        with self._calling(lambda _: grown.set()):
            while not (batch := self.after(cursor)) and self.status == "running":
                grown.clear()
                await grown.wait()
        return batch

    async def read(self, cursor: Cursor, take: Callable[[list[LoggedEvent]], object]) -> None:
        """Hand over the events after a cursor, each later one when it is appended; return when the run ends.

        What `take` raises ends the reading, not the run.
        """
        if batch := self.after(cursor):
            take(batch)
        if self.status != "running":
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def hear(event: LoggedEvent) -> None:
            if ended.done():
                return
            try:
                if event.cursor > cursor:
                    take([event])
            except Exception as error:  # noqa: BLE001 - it is raised to the reader
                ended.set_exception(error)
            else:
                if self.status != "running":
                    ended.set_result(None)

        with self._calling(hear):
            await ended

    @contextmanager
    def _calling(self, reader: Callable[[LoggedEvent], None]) -> Generator[None]:
        """Call the reader with each event that is appended meanwhile."""
        self._readers.append(reader)
        try:
            yield
        finally:
            self._readers.remove(reader)

    def _append(self, event_type: str, data: bytes, extra: bytes = b"") -> None:
        if self.status != "running":
            return
        milliseconds = time.time_ns() // 1_000_000
        last = self._last
        # The clock may stand still or go back, but cursors must always grow.
        self._last = (milliseconds, 0) if milliseconds > last[0] else (last[0], last[1] + 1)
        event_id = f"{self._last[0]}-{self._last[1]}"
        self.updated_at = _now()
        envelope = (
            f'{{"id":"{event_id}","run_id":"{self.id}","created_at":"{self.updated_at}","type":"{event_type}"'
        )
        body = b"".join((envelope.encode(), b',"data":', data, extra, b"}"))
        event = LoggedEvent(self._last, event_id, event_type, body)
        self.events.append(event)
        self.size += len(body) + _EVENT_OVERHEAD
        if event_type in TERMINAL:
            self.status = _STATUSES[event_type]
        for reader in tuple(self._readers):
            reader(event)


class Runs:
    """All runs of this process. It owns their tasks, and `aclose` ends each of them.

    Finished runs are kept until newer ones fill `keep_bytes`. `stop_seconds` is how long a cancelled task may
    take to end before its run ends without it. With `log_ends` each run has a line in the log when it ends:
    for a process that does nothing else, while in a gateway the turns have theirs.
    """

    def __init__(
        self,
        execute: Execute,
        *,
        keep_bytes: int = KEEP_BYTES,
        stop_seconds: float = 3.0,
        log_ends: bool = False,
    ) -> None:
        self._log_ends = log_ends
        self._execute = execute
        self._keep_bytes = keep_bytes
        self._stop_seconds = stop_seconds
        self._kept = 0
        self._runs: dict[str, Run] = {}
        self._finished: deque[Run] = deque()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def create(self, request: CreateRunRequest) -> Run:
        """Start a run; raises Stopping after `aclose` was called."""
        if self._stopping:
            raise Stopping
        run = Run()
        self._runs[run.id] = run
        task = asyncio.create_task(self._drive(run, request), name=f"run {run.id}")
        self._tasks[run.id] = task
        task.add_done_callback(lambda _: self._settle(run))
        return run

    def get(self, run_id: str) -> Run:
        """The run of that id; raises RunLost when it is unknown or was dropped."""
        try:
            return self._runs[run_id]
        except KeyError:
            raise RunLost("run not found") from None

    async def cancel(self, run_id: str, cancellation: Cancellation) -> Run:
        """Cancel a run and wait until it has ended; raises RunLost when it is unknown.

        The status of the returned run shows whether it was cancelled or had finished before.
        """
        run = self.get(run_id)
        if run.status == "running":
            await self._stop([run], cancellation)
        return run

    async def aclose(self) -> None:
        """Accept no more runs, and end the running ones with `run_failed`, reason `shutdown`."""
        self._stopping = True
        running = [run for run in self._runs.values() if run.status == "running"]
        await self._stop(running, RunFailed("run cancelled during server shutdown", "shutdown"))

    async def _stop(self, runs: list[Run], ending: Ending) -> None:
        tasks = [task for run in runs if (task := self._tasks.get(run.id))]
        for run in runs:
            run.ask_to_end(ending)
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._stop_seconds)
        for run in runs:
            run.end_as_asked()

    async def _drive(self, run: Run, request: CreateRunRequest) -> None:
        try:
            run.succeed(await self._execute(request, run.emit))
        except RunInterrupted as interrupted:
            run.end_as_asked(interrupted.leftovers)
        except RunFailed as failure:
            run.fail(failure)
            if self._log_ends:
                logger.warning("run failed: %s", failure.cause, extra=_told_of(run))
        except Exception as error:  # noqa: BLE001 - a run must end, whatever its agent does
            # Its text may hold credentials or a user's words, so only its type and place are logged.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}"
            logger.error("the run broke: %s at %s", type(error).__name__, where, extra={"run_id": run.id})
            run.fail(RunFailed("the agent run failed unexpectedly"))

    def _settle(self, run: Run) -> None:
        """The task of the run is done: end the run as well, and drop the oldest finished runs."""
        run.end_as_asked()  # a task that was cancelled before its first step never ran `_drive`
        if self._log_ends and run.error is None:
            logger.info("run %s", run.status, extra=_told_of(run))
        del self._tasks[run.id]
        self._finished.append(run)
        self._kept += run.size
        while self._kept > self._keep_bytes and len(self._finished) > 1:
            dropped = self._finished.popleft()
            self._kept -= dropped.size
            del self._runs[dropped.id]


def _told_of(run: Run) -> dict[str, object]:
    return {
        "run_id": run.id,
        "seconds": round(time.monotonic() - run.began, 3),
        "chunks": len(run.events) - 2,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
