"""Turn events as SSE frames: the only place that knows the public event names (docs/design/service-api.md).

Pure, but for the URLs of files, which are the same all day. A frame is one `data:` line of ASCII JSON
per event; `message_replace` and the closing message may take several when their text is long. Only the
last of those carries the `id:`, and the others an `event_id` one less, so that a reader cut in between
gets the whole again. Text deltas are filled into a template made once per turn.

A frame of a live turn that has several readers is encoded once per variant, for the first one that needs it,
and shared by all others.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from sys import getsizeof
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from agent_gateway.apps.config import AppMode
from agent_gateway.domain.events import (
    MAX_CHUNK,
    AgentThought,
    ClosingMessage,
    FormAnswered,
    HumanInputRequired,
    LLMChunk,
    MessageEnd,
    MessageFile,
    MessageReplace,
    TurnEvent,
    TurnFailed,
    split_text,
)
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.turns import Step, Turn, Usage, step_id
from agent_gateway.errors import FAILURES
from agent_gateway.routes.http.errors import STATUSES
from agent_gateway.routes.streams.human_input_json import form_json, node_json, submission_json
from agent_gateway.store.turns.reader import TurnView
from agent_gateway.turns.live_turn import LiveTurn
from agent_gateway.turns.log import EventLog

PING: Final = b"event: ping\n\n"

RETRY_MS: Final = (500, 2000)
"""When EventSource reconnects after a stream that broke: spread, since many break at once, and soon enough
for the thousands of a process that died to be served again within seconds."""
HANDED_OVER_RETRY_MS: Final = (50, 1000)
"""The same for a reader that is sent elsewhere."""

MAX_WRITE: Final = 256 * 1024
"""Bytes after which a read stops, so that no reader is handed a whole long log at once."""

PLACE: Final = 100
"""Bytes that the place of a kept frame takes beside the frame, about."""

_escape = json.encoder.encode_basestring_ascii


def retry(between: tuple[int, int]) -> bytes:
    """Tells EventSource in how many milliseconds to come back, by chance between these two."""
    first, last = between
    return b"retry: %d\n\n" % (first + secrets.randbelow(last - first + 1))


class FrameVariant(NamedTuple):
    """The differences between the frames of two readers: the app mode, and whether frames carry ids."""

    mode: AppMode
    ids: bool


class Frames:
    """Makes the frames of all turns; `file_url` makes the URL under which clients find a stored file."""

    def __init__(self, file_url: Callable[[str], str]) -> None:
        self._file_url = file_url
        self._caches: WeakKeyDictionary[LiveTurn, FrameCache] = WeakKeyDictionary()

    def encoder(self, turn: Turn | TurnView) -> "FrameEncoder":
        """The frame maker of one turn."""
        return FrameEncoder(turn, self._file_url)

    def cache(self, live: LiveTurn) -> "FrameCache":
        """The frames of a live turn, which all its readers share."""
        cache = self._caches.get(live)
        if cache is None:
            cache = self._caches[live] = FrameCache(live.log, self.encoder(live.turn))
        return cache


class FrameCache:
    """The frames of one event log, kept while it has several readers. What they take is counted in its size.

    The frame of a lone reader is not kept: it takes several times as much as its token. When that reader
    resumes, it is made again.
    """

    def __init__(self, log: EventLog, encoder: "FrameEncoder") -> None:
        self.encoder = encoder
        self._log = log
        self._frames: dict[FrameVariant, dict[int, bytes]] = {}

    def read(self, variant: FrameVariant, index: int) -> tuple[bytes, int]:
        """Frames from an index on, joined, and the index to continue from; empty when there are none."""
        last = len(self._log.events)
        if index + 1 == last:
            return self._frame(variant, index), last
        found: list[bytes] = []
        end, size = index, 0
        while end < last and size < MAX_WRITE:
            frame = self._frame(variant, end)
            found.append(frame)
            size += len(frame)
            end += 1
        return b"".join(found), end

    def _frame(self, variant: FrameVariant, index: int) -> bytes:
        log = self._log
        frames = self._frames.get(variant)
        frame = frames.get(index) if frames is not None else None
        if frame is None:
            frame = self.encoder.encode(log.events[index], variant)
            if log.readers > 1 and not log.frozen:
                self._frames.setdefault(variant, {})[index] = frame
                log.size += PLACE + getsizeof(frame)
        return frame


class FrameEncoder:
    """Makes the frames of one turn's events."""

    def __init__(self, turn: Turn | TurnView, file_url: Callable[[str], str]) -> None:
        self._message_id = turn.message_id
        self._file_url = file_url
        self._common = (
            f'"conversation_id":"{turn.conversation_id}","message_id":"{turn.message_id}",'
            f'"created_at":{turn.created_at},"task_id":"{turn.task_id}","event_id":'
        )
        self._chat, self._agent = self._template("message"), self._template("agent_message")

    def encode(self, event: TurnEvent, variant: FrameVariant) -> bytes:
        """The frame of an event. It may be empty: the mode does not show that event."""
        if isinstance(event, LLMChunk):
            head, tail = self._chat if variant.mode == "chat" else self._agent
            frame = f'{head}{event.position},"answer":{_escape(event.text)}{tail}'
            return (_with_id(frame, event.position) if variant.ids else frame).encode()
        *before, last = self._lines(event, variant.mode) or [""]
        if variant.ids and last:
            last = _with_id(last, event.position)
        return "".join((*before, last)).encode()

    def _template(self, event: str) -> tuple[str, str]:
        """The text before the position and after the answer of an answer event."""
        tail = ',"from_variable_selector":null' if event == "message" else ""
        return (
            f'data: {{"event":"{event}","id":"{self._message_id}",{self._common}',
            f"{tail}}}\n\n",
        )

    def _lines(self, event: TurnEvent, mode: AppMode) -> list[str]:
        """All lines of an event other than a plain chunk; none when the mode does not show it."""
        lines: list[str] = []
        match event:
            case AgentThought() if mode != "chat":
                lines = [self._thought(event.position, event.step)]
            case ClosingMessage() if mode == "agent":
                lines = self._answers("message", event.position, event.text)
            case AgentThought() | ClosingMessage():
                pass
            case MessageReplace():
                lines = self._replace(event, mode)
            case FormAnswered():
                lines = [self._answered(event)]
            case HumanInputRequired(position, form):
                fields = {"workflow_run_id": form.message_id, "data": form_json(form)}
                lines = [self._line("human_input_required", position, fields)]
            case MessageFile() | MessageEnd() | TurnFailed():
                name, fields = self._fields(event)
                lines = [self._line(name, event.position, fields)]
            case LLMChunk():
                lines = self._answers(_chunk_event(mode), event.position, event.text)
        return lines

    def _line(self, event: str, position: int, fields: Mapping[str, object]) -> str:
        rest = json.dumps(fields, separators=(",", ":"))[1:]
        return f'data: {{"event":"{event}",{self._common}{position},{rest}\n\n'

    def _answers(self, event: str, position: int, text: str) -> list[str]:
        head, tail = self._template(event)
        *before, last = [piece.text for piece in split_text(text, 0)] or [""]
        lines = [f'{head}{position - 1},"answer":{_escape(piece)}{tail}' for piece in before]
        return [*lines, f'{head}{position},"answer":{_escape(last)}{tail}']

    def _replace(self, event: MessageReplace, mode: AppMode) -> list[str]:
        """The first piece replaces, the others append."""
        first, more = event.text[:MAX_CHUNK], event.text[MAX_CHUNK:]
        position = event.position - 1 if more else event.position
        line = self._line("message_replace", position, {"answer": first, "reason": event.reason})
        return [line, *(self._answers(_chunk_event(mode), event.position, more) if more else [])]

    def _answered(self, event: FormAnswered) -> str:
        """One event with two names: the submission, or that there was none in time."""
        form = event.form
        if submitted := submission_json(form):
            name, data = "human_input_form_filled", submitted
        else:
            name, data = "human_input_form_timeout", {**node_json(form), "expiration_time": form.expires_at}
        return self._line(name, event.position, {"workflow_run_id": form.message_id, "data": data})

    def _fields(self, event: MessageFile | MessageEnd | TurnFailed) -> tuple[str, dict[str, object]]:
        """Name and fields of an event that every mode shows in the same way."""
        match event:
            case MessageFile(_, file):
                url = file.url or self._file_url(file.id)
                return "message_file", {
                    "id": file.id,
                    "type": file.type,
                    "belongs_to": "assistant",
                    "url": url,
                }
            case MessageEnd():
                metadata: dict[str, object] = {
                    "usage": usage_json(event.usage),
                    "retriever_resources": [],
                    "finish_reason": event.finish_reason,
                }
                files = [artifact_json(file, self._file_url) for file in event.files]
                return "message_end", {"id": self._message_id, "metadata": metadata, "files": files}
            case TurnFailed(_, code):
                # A newer release may have stored a code that this one does not know.
                code = code if code in FAILURES else "internal_server_error"
                return "error", {"status": STATUSES[code], "code": code, "message": FAILURES[code]}

    def _thought(self, position: int, step: Step) -> str:
        fields: dict[str, object] = {
            "id": step_id(self._message_id, step.number),
            "position": step.number,
            "thought": step.thought,
            "tool": step.tool,
            "tool_labels": {},
            "tool_input": step.tool_input,
            "observation": step.observation,
            "message_files": [],
        }
        return self._line("agent_thought", position, fields)


def _with_id(frame: str, position: int) -> str:
    """The `id:` follows the data: some readers remember it at once, even if the frame is cut after it."""
    return f"{frame[:-1]}id: {position}\n\n"


def _chunk_event(mode: AppMode) -> str:
    return "message" if mode == "chat" else "agent_message"


def artifact_json(file: StoredFile, file_url: Callable[[str], str]) -> dict[str, object]:
    """A file that an agent made, as a message's item and its last event list it."""
    return {
        "id": file.id,
        "filename": file.name,
        "type": file.type,
        "url": file.url or file_url(file.id),
        "mime_type": file.mime_type,
        "size": file.size,
        "transfer_method": "tool_file",
        "belongs_to": "assistant",
        "upload_file_id": None if file.url else file.id,
        "reference": None,
    }


def usage_json(usage: Usage | None) -> dict[str, object]:
    """Usage with all fourteen fields, zeros when the backend gave none."""
    fields: dict[str, object] = msgspec.to_builtins(usage or Usage())
    return fields
