"""Scripts for runs of the scripted backend: steps, and helpers that make them.

    script(text("Hel", "lo"), Cut(), text("!"), succeed())

Steps happen in order, whether somebody reads or not. `Cut`, `Keepalive`, `Raw`, `Trim` and `Forget`
happen to the first reader that gets there, and only once, so that what a test sees does not depend
on how fast anybody was.
"""

import asyncio
import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.fakes.session import query_of
from tests.support.json_type import Json

ABSENT: Final = object()
"""The key is left out."""
DEFAULT: Final = object()
"""The backend makes it up: from the request, and from what the run said."""


@dataclass(frozen=True)
class Emit:
    """One run event."""

    type: str
    data: Json
    delta: Any = ABSENT


@dataclass(frozen=True)
class Frame:
    """One recorded SSE frame with its own id, byte by byte."""

    bytes: bytes


@dataclass(frozen=True)
class Succeed:
    """run_succeeded; by default with the text of the last round and a snapshot that has grown."""

    output: Any = DEFAULT
    deferred: Any = ABSENT
    snapshot: Any = DEFAULT
    usage: Any = DEFAULT


@dataclass(frozen=True)
class Raw:
    """Bytes on the wire as they are, outside the log: garbage, half a frame."""

    bytes: bytes


@dataclass(frozen=True)
class Keepalive:
    """A comment."""


@dataclass(frozen=True)
class Cut:
    """The connection breaks; `clean` ends it like a complete response."""

    clean: bool = False


@dataclass(frozen=True)
class Trim:
    """The log keeps only its newest events for readers that connect from now on."""

    keep: int


@dataclass(frozen=True)
class Forget:
    """The backend no longer knows the run (404)."""


class Gate:
    """The script waits until the test opens it, from any thread. One that is never opened is a stall."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        with self._lock:
            self._open = True
            for loop, event in self._waiting:
                loop.call_soon_threadsafe(event.set)
            self._waiting.clear()

    async def wait(self) -> None:
        event = asyncio.Event()
        with self._lock:
            if self._open:
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


Happening = Raw | Keepalive | Cut | Trim | Forget
"""Steps that affect a reader, not the log."""
Step = Emit | Frame | Succeed | Gate | Happening


@dataclass(frozen=True)
class Script:
    """Answers and steps of one run."""

    steps: list[Step] = field(default_factory=list)
    create: int | Literal["cut", "garbage", "hang"] = 202
    """Status of POST /runs; or: the run is made, but its answer is lost, broken, or never comes."""
    cancel: int | Literal["ignore", "hang"] = 200
    """Status of the cancel. Only 200 stops the run; `ignore` is a 200 that does nothing."""
    keep_open: bool = True
    """Whether the event stream stays open, silent, after the terminal event."""


ScriptSource = Script | Callable[[Json], Script]
"""A script, or what makes one from the body of POST /runs."""


def script(
    *parts: Step | list[Step],
    create: int | Literal["cut", "garbage", "hang"] = 202,
    cancel: int | Literal["ignore", "hang"] = 200,
    keep_open: bool = True,
    started: bool = True,
) -> Script:
    """A script of steps and lists of steps; `run_started` comes by itself unless `started` is off."""
    steps: list[Step] = [Emit("run_started", {})] if started else []
    for part in parts:
        steps += part if isinstance(part, list) else [part]
    return Script(steps, create, cancel, keep_open)


def refuse(status: int) -> Script:
    """POST /runs is answered with this status, and there is no run."""
    return Script(create=status)


def agent_event(data: Json, delta: Any = None, *, old: bool = False) -> Emit:
    """A pydantic_ai_event; an old backend has no key agent_message_delta."""
    return Emit("pydantic_ai_event", data, ABSENT if old else delta)


def delta(piece: str, *, index: int = 0, old: bool = False) -> Emit:
    """One more piece of a text part that was begun by `text`."""
    data = {
        "index": index,
        "delta": {"content_delta": piece, "provider_name": None, "part_delta_kind": "text"},
        "event_kind": "part_delta",
    }
    return agent_event(data, piece, old=old)


def text(*pieces: str, index: int = 0, old: bool = False) -> list[Step]:
    """A whole text part: its first piece, `final_result`, the other pieces, its end."""
    part = {"content": pieces[0], "id": None, "part_kind": "text"}
    start = {"index": index, "part": part, "previous_part_kind": None, "event_kind": "part_start"}
    final = {"tool_name": None, "tool_call_id": None, "event_kind": "final_result"}
    whole = {**part, "content": "".join(pieces)}
    end = {"index": index, "part": whole, "next_part_kind": None, "event_kind": "part_end"}
    return [
        agent_event(start, pieces[0], old=old),
        agent_event(final, old=old),
        *(delta(piece, index=index, old=old) for piece in pieces[1:]),
        agent_event(end, old=old),
    ]


def file(data: bytes, media_type: str = "image/png", *, index: int = 1) -> list[Step]:
    """A file that the model makes, as a part of its own."""
    content = {
        "data": base64.urlsafe_b64encode(data).decode(),
        "media_type": media_type,
        "vendor_metadata": None,
        "kind": "binary",
        "identifier": "4a5eb7",
    }
    part = {"content": content, "id": None, "provider_name": None, "part_kind": "file"}
    return [
        agent_event({"index": index, "part": part, "previous_part_kind": "text", "event_kind": "part_start"}),
        agent_event({"index": index, "part": part, "next_part_kind": None, "event_kind": "part_end"}),
    ]


def thinking(*pieces: str, index: int = 0) -> list[Step]:
    """A whole thinking part."""
    part = {"content": pieces[0], "id": None, "signature": None, "part_kind": "thinking"}
    whole = {**part, "content": "".join(pieces)}
    kind = {"signature_delta": None, "part_delta_kind": "thinking"}
    deltas = [{"content_delta": piece, **kind} for piece in pieces[1:]]
    return [
        agent_event({"index": index, "part": part, "previous_part_kind": None, "event_kind": "part_start"}),
        *(agent_event({"index": index, "delta": delta, "event_kind": "part_delta"}) for delta in deltas),
        agent_event({"index": index, "part": whole, "next_part_kind": "text", "event_kind": "part_end"}),
    ]


def tool_call(call_id: str, name: str, args: Json, *, kind: str = "function_tool_call") -> list[Step]:
    """The model's decision for a tool and the start of the tool."""
    part = {"tool_name": name, "args": json.dumps(args), "tool_call_id": call_id, "part_kind": "tool-call"}
    return [
        agent_event({"index": 1, "part": part, "previous_part_kind": None, "event_kind": "part_start"}),
        agent_event({"index": 1, "part": part, "next_part_kind": None, "event_kind": "part_end"}),
        agent_event({"part": part, "args_valid": True, "event_kind": kind}),
    ]


def tool_result(
    call_id: str,
    name: str,
    content: Any,
    *,
    retry: bool = False,
    key: Literal["part", "result"] = "part",
    metadata: Any = None,
) -> list[Step]:
    """The return of a tool, or what the model has to try again; under `result` in some builds."""
    kind = "retry-prompt" if retry else "tool-return"
    result = {"tool_name": name, "content": content, "tool_call_id": call_id, "part_kind": kind}
    if metadata is not None:
        result["metadata"] = metadata
    return [agent_event({key: result, "content": None, "event_kind": "function_tool_result"})]


def final_output(args: Json, call_id: str = "call_final_1") -> list[Step]:
    """Structured output: a tool that clients must not see. Follow it with `succeed(output=args)`."""
    final = {"tool_name": "final_output", "tool_call_id": call_id, "event_kind": "final_result"}
    result = {"tool_name": "final_output", "content": "Final result processed.", "tool_call_id": call_id}
    return [
        agent_event(final),
        *tool_call(call_id, "final_output", args, kind="output_tool_call"),
        agent_event({"part": {**result, "part_kind": "tool-return"}, "event_kind": "output_tool_result"}),
    ]


def recorded(path: Path) -> list[Step]:
    """The frames and keepalives of a recorded stream, with `started` off: it brings its own start."""
    sections = [section for section in path.read_bytes().split(b"\n\n") if section.strip()]
    return [Keepalive() if section.startswith(b":") else Frame(section + b"\n\n") for section in sections]


def succeed(*, output: Any = DEFAULT, snapshot: Any = DEFAULT, usage: Any = DEFAULT) -> Succeed:
    return Succeed(output=output, snapshot=snapshot, usage=usage)


def ask_human(question: str, call_id: str = "call_ask_1", **more: Any) -> Succeed:
    """The run ends with a question; `more` goes into its args."""
    args = {
        "title": "Approval needed",
        "question": question,
        "markdown": "**Please decide.**",
        "fields": [{"name": "comment", "label": "Comment", "required": False, "type": "paragraph"}],
        "actions": [
            {"id": "approve", "label": "Approve", "style": "primary"},
            {"id": "reject", "label": "Reject", "style": "destructive"},
        ],
        "urgency": "normal",
        **more,
    }
    metadata = {"tool_name": "ask_human", "schema_version": 1}
    deferred = {"tool_call_id": call_id, "tool_name": "ask_human", "args": args, "metadata": metadata}
    return Succeed(output=ABSENT, deferred=deferred)


def fail(reason: str | None = None, error: str = "something went wrong", **more: Any) -> Emit:
    """run_failed; newer backends also put session_snapshot and usage there (`more`)."""
    return Emit("run_failed", {"error": error, "reason": reason, **more})


def cancelled(reason: str | None = "user", message: str | None = None, **more: Any) -> Emit:
    return Emit("run_cancelled", {"reason": reason, "message": message, **more})


def echo(body: Json) -> Script:
    """The default script: `You said: <query>.`, word by word; the answer of a human is said as JSON."""
    answers = body.get("deferred_tool_results")
    said = json.dumps(list(answers["calls"].values())) if answers else query_of(body)
    words = f"You said: {said}.".split(" ")
    return script(text(*(f"{word} " for word in words[:-1]), words[-1]), succeed())
