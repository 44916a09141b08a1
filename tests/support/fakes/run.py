"""One run of the scripted backend: its log, and the task that plays its script into it."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.support.fakes.script import (
    ABSENT,
    DEFAULT,
    Emit,
    Frame,
    Gate,
    Happening,
    Script,
    Succeed,
    fail,
    script,
)
from tests.support.fakes.session import grown_snapshot, usage_of
from tests.support.json_type import Json

STATUS_OF = {"run_succeeded": "succeeded", "run_failed": "failed", "run_cancelled": "cancelled"}

Cursor = tuple[int, int]


def cursor_of(text: str) -> Cursor:
    """`<ms>-<seq>` as numbers; ValueError for anything else."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence)


@dataclass
class Logged:
    """A run event in the log."""

    cursor: Cursor
    frame: bytes
    event: Json


@dataclass
class Once:
    """A step that waits in the log for its first reader."""

    step: Happening
    done: bool = False


class Run:
    """Ids, times and order depend on the script and the run's number only."""

    def __init__(self, number: int, run_id: str, body: Json, plan: Script, problem: str | None) -> None:
        self.id = run_id
        self.script = plan
        self.status = "running"
        self.error: str | None = None
        self.log: list[Logged | Once] = []
        self.trimmed = 0
        """Index of the oldest entry a new reader gets."""
        self.over = False
        self._task: asyncio.Task[None] | None = None
        self._body = body
        self._problem = problem
        self._clock = 1_795_000_000_000 + number * 1_000_000
        self._round = ""
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Play the script, whether somebody reads or not."""
        self._task = asyncio.create_task(self._play())

    def halt(self) -> None:
        """The process dies: nothing happens from now on."""
        if self._task is not None:
            self._task.cancel()

    def end(self, ending: Emit) -> None:
        """End the run in the middle of its script."""
        self.halt()
        self.over = True
        self.emit(ending)

    async def _play(self) -> None:
        """Do the steps of the script."""
        steps = script(fail(error=self._problem)).steps if self._problem else self.script.steps
        for step in steps:
            match step:
                case Gate():
                    await step.wait()
                case Emit():
                    self.emit(step)
                case Succeed():
                    self.emit(Emit("run_succeeded", self._success(step)))
                case Frame():
                    self._append(step.bytes)
                case _:
                    self.log.append(Once(step))
                    self._wake()
        self.over = True
        self._wake()

    def emit(self, step: Emit) -> None:
        """Append an event under the next id."""
        self._clock += 10
        event: Json = {
            "id": f"{self._clock}-0",
            "run_id": self.id,
            "created_at": datetime.fromtimestamp(self._clock / 1000, UTC).isoformat(),
            "type": step.type,
            "data": step.data,
        }
        if step.delta is not ABSENT:
            event["agent_message_delta"] = step.delta
        head = f"id: {event['id']}\nevent: {step.type}\ndata: "
        self._append(head.encode() + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")

    @property
    def changed(self) -> asyncio.Event:
        """Set when the log has grown since now, or the script is over."""
        return self._changed

    def entry_after(self, after: Cursor | None) -> int:
        """Index of the first entry for a reader that connects now."""
        index = 0
        for number, entry in enumerate(self.log, start=1):
            if after is not None and isinstance(entry, Logged) and entry.cursor <= after:
                index = number
        return max(index, self.trimmed)

    def trim(self, keep: int, upto: int) -> None:
        """Keep only the newest few events before entry `upto`."""
        events = [index for index in range(upto) if isinstance(self.log[index], Logged)]
        oldest = [*events, upto][-keep - 1] if keep <= len(events) else 0
        self.trimmed = max(self.trimmed, oldest)

    def _append(self, frame: bytes) -> None:
        event: Json = json.loads(next(line for line in frame.split(b"\n") if line.startswith(b"data:"))[5:])
        cursor = cursor_of(event["id"])
        # Events after a recorded one must have larger ids.
        self._clock = max(self._clock, cursor[0])
        self._listen(event)
        self.log.append(Logged(cursor, frame, event))
        if self.status == "running" and event["type"] in STATUS_OF:
            self.status = STATUS_OF[event["type"]]
            self.error = event["data"].get("error")
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _listen(self, event: Json) -> None:
        """Keep the text of the model's current round: it is the default output."""
        data = event["data"]
        match data.get("event_kind"):
            case "part_start" if data["part"]["part_kind"] == "text":
                self._round += data["part"]["content"]
            case "part_delta" if data["delta"]["part_delta_kind"] == "text":
                self._round += data["delta"]["content_delta"]
            case "function_tool_call":
                self._round = ""

    def _success(self, step: Succeed) -> Json:
        output = self._round if step.output is DEFAULT else step.output
        if step.deferred is ABSENT:
            said = output if isinstance(output, str) else json.dumps(output)
            reply = {"content": said, "part_kind": "text"}
        else:
            said = self._round
            reply = {**step.deferred, "args": json.dumps(step.deferred["args"]), "part_kind": "tool-call"}
        snapshot = grown_snapshot(self._body, reply) if step.snapshot is DEFAULT else step.snapshot
        usage = usage_of(self._body, said) if step.usage is DEFAULT else step.usage
        fields = {"session_snapshot": snapshot, "output": output, "usage": usage}
        fields["deferred_tool_call"] = step.deferred
        return {key: value for key, value in fields.items() if value is not ABSENT}
