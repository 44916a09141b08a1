"""The fold: run events in, turn events out.

Pure and total. The same run events give the same turn events with the same positions in every process:
nothing here depends on a clock, a random id or how the bytes were cut (I8). Unknown events are ignored, never
an error. The fold stops at the first terminal run event. conclusion.py decides what follows from that one,
and it is sent to readers only after it was stored (R2).
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from agent_gateway.backend.fold.artifacts import (
    Artifact,
    files_in,
    linked_files,
    read_file,
    read_link,
    without_bytes,
)
from agent_gateway.backend.fold.surrogates import ends_in_half, half_from_bytes, half_to_bytes, split_half
from agent_gateway.backend.fold.terminal import RunEnd, read_run_end
from agent_gateway.backend.fold.tool_text import MAX_OBSERVATION, MAX_TOOL_INPUT, cut, json_text, tool_name
from agent_gateway.backend.lenient import as_dict, as_str, read_object
from agent_gateway.backend.protocol import START, TERMINAL, Cursors, RunEvent
from agent_gateway.domain.events import MAX_CHUNK, AgentThought, LLMChunk, TurnEvent, split_text
from agent_gateway.domain.text import clean_text
from agent_gateway.domain.turns import Step

FOLD_VERSION: Final = 3
"""Pinned on every turn: raise it when equal run events would get other positions (R17).

Since 3, a character that deltas cut in two is put together, and files that tools only link to are announced.
"""
FOLD_VERSIONS: Final = (FOLD_VERSION, FOLD_VERSION - 1)
"""The folds that this release knows: its own, and that of turns which the previous release began."""
OUTPUT_TOOL: Final = "final_output"
"""Name of the tool through which backends deliver structured output; never shown."""
MAX_THOUGHT: Final = 16_000
"""Characters of one reasoning step."""
FIRST_GROWTH: Final = 32
"""A growing thought is sent again after this many characters, then each time it has doubled."""


class _Checkpoint(msgspec.Struct):
    """The stored state of a fold. The names and the order of its fields are part of stored bytes."""

    position: int
    positions: list[int]
    texts: list[str]
    steps: list[Step]
    cursors: Cursors
    calls: dict[str, int]
    thinking: int
    thought: str
    told: int
    files_left_out: int
    half: bytes = b""
    thought_half: bytes = b""


class Fold:
    """State of one turn's fold: feed it batches of run events, in order, from the start.

    `opening` is the number of turn events before those of the run. `version` is the one of FOLD_VERSIONS
    that the turn is pinned to.
    """

    def __init__(self, opening: int = 0, version: int = FOLD_VERSION) -> None:
        self.position = opening
        self._newer = version > 2
        """Older folds send each half of a character as U+FFFD, and do not announce linked files."""
        self.chunks: list[LLMChunk] = []
        self.steps: list[Step] = []
        self.files: list[Artifact] = []
        self.files_left_out = 0
        """How many files were too many, too large or unreadable."""
        self.run_end: RunEnd | None = None
        self.cursors = START
        """Where the fold stopped in the run's log."""
        self._calls: dict[str, int] = {}
        """tool_call_id → step number of the last call with that id."""
        self._thinking = 0
        """Number of the open reasoning step, 0 when none is open."""
        self._thought = ""
        self._emitted = 0
        """How many characters of the open reasoning step were sent."""
        self._half = ""
        """The first half of a character of the text, held back until the second half arrives."""
        self._thought_half = ""
        """The same for the reasoning."""

    def feed(self, events: Iterable[RunEvent]) -> list[TurnEvent]:
        """The turn events that follow from these run events; nothing after a terminal one."""
        out: list[TurnEvent] = []
        before, last = self.cursors
        for event in events:
            if self.run_end is not None:
                break
            before, last = last, event.id
            delta = event.agent_message_delta
            if delta.__class__ is str and delta and event.type == "pydantic_ai_event":
                if self._thinking or self._thought_half:
                    self._close_thought(out)
                if delta.isascii() and "\0" not in delta and not self._half and len(delta) <= MAX_CHUNK:
                    # What `_text` does with nearly all deltas.
                    self.position += 1
                    chunk = LLMChunk(self.position, delta)
                    self.chunks.append(chunk)
                    out.append(chunk)
                else:
                    self._text(delta, out)
            elif event.type == "pydantic_ai_event":
                self._agent_event(event, out)
            elif event.type in TERMINAL:
                self._close_thought(out)
                self._give_up_half(out)
                self.run_end = read_run_end(event)
        self.cursors = (before, last)
        return out

    def dump(self) -> bytes:
        """The whole state as a checkpoint (R5); never taken past the run's end."""
        assert self.run_end is None
        state = _Checkpoint(
            position=self.position,
            positions=[chunk.position for chunk in self.chunks],
            texts=[chunk.text for chunk in self.chunks],
            steps=self.steps,
            cursors=self.cursors,
            calls=self._calls,
            thinking=self._thinking,
            thought=self._thought,
            told=self._emitted,
            files_left_out=self.files_left_out,
            half=half_to_bytes(self._half),
            thought_half=half_to_bytes(self._thought_half),
        )
        # Files are compressed already: compressing them again would hold up the loop.
        return msgspec.msgpack.encode((zlib.compress(msgspec.msgpack.encode(state), level=1), self.files))

    @classmethod
    def load(cls, checkpoint: bytes, version: int = FOLD_VERSION) -> "Fold":
        """The fold that was dumped, of that version. It continues after its cursors."""
        held, files = msgspec.msgpack.decode(checkpoint, type=tuple[bytes, list[Artifact]])
        state = msgspec.msgpack.decode(zlib.decompress(held), type=_Checkpoint)
        fold = cls(version=version)
        fold.files, fold.files_left_out = files, state.files_left_out
        fold.position, fold.steps, fold.cursors = state.position, state.steps, state.cursors
        fold.chunks = [LLMChunk(*chunk) for chunk in zip(state.positions, state.texts, strict=True)]
        fold._calls, fold._thinking = state.calls, state.thinking
        fold._thought, fold._emitted = state.thought, state.told
        fold._half, fold._thought_half = half_from_bytes(state.half), half_from_bytes(state.thought_half)
        return fold

    @property
    def answer(self) -> str:
        """The text so far."""
        return "".join([chunk.text for chunk in self.chunks])

    def _text(self, text: str, out: list[TurnEvent]) -> None:
        if self._half or (self._newer and ends_in_half(text)):
            text, self._half = split_half(self._half + text)
        else:
            text = clean_text(text)
        if text:
            self._chunk(text, out)

    def _give_up_half(self, out: list[TurnEvent]) -> None:
        """The second half of the text's last character never arrived: the first one becomes U+FFFD."""
        if self._half:
            lost, self._half = clean_text(self._half), ""
            self._chunk(lost, out)

    def _chunk(self, text: str, out: list[TurnEvent]) -> None:
        if len(text) <= MAX_CHUNK:
            self.position += 1
            chunk = LLMChunk(self.position, text)
            self.chunks.append(chunk)
            out.append(chunk)
            return
        pieces = split_text(text, self.position + 1)
        self.position += len(pieces)
        self.chunks += pieces
        out += pieces

    def _agent_event(self, event: RunEvent, out: list[TurnEvent]) -> None:
        data = read_object(event.data)
        part, delta = as_dict(data.get("part")), as_dict(data.get("delta"))
        match data.get("event_kind"):
            case "part_start":
                self._close_thought(out)
                if part.get("part_kind") == "thinking":
                    self._think(as_str(part.get("content")), out)
                elif part.get("part_kind") == "file":
                    self._file(as_dict(part.get("content")))
                elif event.agent_message_delta is msgspec.UNSET and part.get("part_kind") == "text":
                    self._older_text(as_str(part.get("content")), out)
            case "part_delta":
                if delta.get("part_delta_kind") == "thinking":
                    self._think(as_str(delta.get("content_delta")), out)
                elif event.agent_message_delta is msgspec.UNSET and delta.get("part_delta_kind") == "text":
                    self._older_text(as_str(delta.get("content_delta")), out)
            case "part_end":
                if part.get("part_kind") == "thinking":
                    self._close_thought(out)
            case "function_tool_call":
                self._tool_call(part, out)
            case "function_tool_result":
                self._tool_result(part or as_dict(data.get("result")), out)
            case _:
                pass

    def _older_text(self, text: str, out: list[TurnEvent]) -> None:
        if text:
            self._close_thought(out)
            self._text(text, out)

    def _think(self, text: str, out: list[TurnEvent]) -> None:
        if self._newer:
            text, self._thought_half = split_half(self._thought_half + text)
        self._reason(clean_text(text), out)

    def _reason(self, text: str, out: list[TurnEvent]) -> None:
        while text:
            if not self._thinking:
                self._thinking = len(self.steps) + 1
                self._thought, self._emitted = "", 0
                self.steps.append(Step(self._thinking, self.position))
            room = MAX_THOUGHT - len(self._thought)
            self._thought += text[:room]
            text = text[room:]
            if not self._emitted or len(self._thought) >= max(2 * self._emitted, FIRST_GROWTH):
                self._emit_thought(out)
            if text:
                # The step is full: the rest of this segment becomes the next step.
                self._close_step(out)

    def _emit_thought(self, out: list[TurnEvent]) -> None:
        self._emitted = len(self._thought)
        self._emit(Step(self._thinking, 0, thought=self._thought), out)

    def _close_thought(self, out: list[TurnEvent]) -> None:
        if self._thought_half:
            lost, self._thought_half = clean_text(self._thought_half), ""
            self._reason(lost, out)
        self._close_step(out)

    def _close_step(self, out: list[TurnEvent]) -> None:
        if self._thinking:
            if len(self._thought) > self._emitted:
                self._emit_thought(out)
            self._thinking = 0

    def _tool_call(self, part: Mapping[str, object], out: list[TurnEvent]) -> None:
        self._close_thought(out)
        name, call = tool_name(part), clean_text(as_str(part.get("tool_call_id")))
        if not name or name == OUTPUT_TOOL:
            return
        # Always a new step: some models number their calls from the start in each round.
        number = self._calls[call] = len(self.steps) + 1
        tool_input = cut(json_text(part.get("args")), MAX_TOOL_INPUT)
        self._emit(Step(number, 0, tool=name, tool_input=tool_input), out)

    def _tool_result(self, part: Mapping[str, object], out: list[TurnEvent]) -> None:
        name, call = tool_name(part), clean_text(as_str(part.get("tool_call_id")))
        if name == OUTPUT_TOOL or (call not in self._calls and not name):
            return
        number = self._calls.setdefault(call, len(self.steps) + 1)
        for content in files_in(part.get("content")):
            self._file(content)
        for link in linked_files(part.get("metadata")) if self._newer else ():
            self._link(link)
        step = self.steps[number - 1] if number <= len(self.steps) else Step(number, 0, tool=name)
        observation = cut(json_text(without_bytes(part.get("content"))), MAX_OBSERVATION)
        self._emit(msgspec.structs.replace(step, observation=observation), out)

    def _file(self, content: Mapping[str, object]) -> None:
        """Keep a file. It is announced once it is stored, which the end of the turn decides (R2)."""
        if (made := read_file(content, self.files)) is not None:
            self.files.append(made)
        else:
            self.files_left_out += 1

    def _link(self, file: Mapping[str, object]) -> None:
        """Keep a link to a file of a tool, once, however often the tool returns it."""
        made = read_link(file, self.files)
        if made is None:
            self.files_left_out += 1
        elif all(made.url != other.url for other in self.files):
            self.files.append(made)

    def _emit(self, step: Step, out: list[TurnEvent]) -> None:
        self.position += 1
        step = msgspec.structs.replace(step, position=self.position)
        self.steps[step.number - 1 : step.number] = [step]
        out.append(AgentThought(self.position, step))
