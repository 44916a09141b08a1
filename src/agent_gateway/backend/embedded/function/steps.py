"""Turns what an agent function yields into run events."""

import base64
import json
from collections.abc import Mapping
from typing import Final, NoReturn

import msgspec

from agent_gateway.agent import File, Question, Step, Thought, ToolCall, ToolResult, Usage
from agent_gateway.backend.embedded.runs import Emit, RunFailed
from agent_gateway.domain.text import clean_json

ASK: Final = "ask_human"
_NO_TEXT: Final = b"null"


class Steps:
    """Takes the steps of one turn and emits the events that follow from them.

    Raises RunFailed for what is no step or no JSON. Its texts hold no values.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._said: list[str] = []
        self._thought: list[str] = []
        self._tools: dict[str, str] = {}
        self.question: Question | None = None
        """The question that ends the turn."""
        self.used = Usage()
        """All tokens so far."""

    @property
    def answer(self) -> str:
        """The text so far."""
        return "".join(self._said)

    def take(self, step: Step) -> None:
        """Emit the events of one step."""
        if not isinstance(step, Thought | Usage):
            self._close_thought()
        match step:
            case str():
                self._say(step)
            case Thought():
                self._think(step.text)
            case ToolCall():
                self._call(step)
            case ToolResult():
                self._result(step)
            case File():
                self._file(step)
            case Usage():
                before = self.used
                self.used = Usage(
                    before.input_tokens + step.input_tokens, before.output_tokens + step.output_tokens
                )
            case Question():
                self.question = step
            case _:
                no_step(f"the agent yielded {type(step).__name__}, which is no step")

    def end(self) -> None:
        """Nothing more comes: close what is open."""
        self._close_thought()

    def _say(self, text: str) -> None:
        if text:
            self._said.append(text)
            piece = to_json(text)
            start = b'{"event_kind":"part_delta","index":0,"delta":{"part_delta_kind":"text","content_delta":'
            self._emit(b"".join((start, piece, b"}}")), piece)

    def _think(self, text: str) -> None:
        if not isinstance(text, str):
            no_step("the text of a Thought is no str")
        if not self._thought:
            self._event("part_start", index=0, part={"part_kind": "thinking", "content": text})
        elif text:
            delta = {"part_delta_kind": "thinking", "content_delta": text}
            self._event("part_delta", index=0, delta=delta)
        self._thought.append(text)

    def _close_thought(self) -> None:
        if self._thought:
            part = {"part_kind": "thinking", "content": "".join(self._thought)}
            self._thought.clear()
            self._event("part_end", index=0, part=part)

    def _call(self, call: ToolCall) -> None:
        self._tools[call.id] = call.name
        part = {"tool_name": call.name, "args": call.args, "tool_call_id": call.id, "part_kind": "tool-call"}
        self._event("function_tool_call", part=part)

    def _result(self, result: ToolResult) -> None:
        if (name := self._tools.get(result.call_id)) is None:
            no_step("the agent yielded a ToolResult without its ToolCall")
        part = {
            "tool_name": name,
            "content": result.content,
            "tool_call_id": result.call_id,
            "part_kind": "tool-return",
        }
        self._event("function_tool_result", part=part)

    def _file(self, file: File) -> None:
        if not isinstance(file.data, bytes) or not file.data or not file.media_type:
            no_step("a File that is yielded needs data and a media_type")
        data = base64.b64encode(file.data).decode()
        content = {"data": data, "media_type": file.media_type, "kind": "binary"}
        self._event("part_start", index=0, part={"part_kind": "file", "content": content})

    def _event(self, kind: str, **fields: object) -> None:
        self._emit(to_json({"event_kind": kind, **fields}), _NO_TEXT)


def deferred_call(question: Question) -> Mapping[str, object]:
    """The call with which a run ends, in the form of the run protocol."""
    fields = [
        {
            "name": field.name,
            "label": field.label,
            "type": "select" if field.options else "paragraph",
            "required": field.required,
            "options": [{"value": option, "label": option} for option in field.options],
        }
        for field in question.fields
    ]
    actions = [{"id": one.id, "label": one.label, "style": one.style} for one in question.actions]
    args = {"title": question.title, "question": question.text, "fields": fields, "actions": actions}
    call = {"tool_call_id": question.id, "tool_name": ASK, "args": args}
    cleaned: Mapping[str, object] = clean_json(call)
    return cleaned


def to_json(value: object) -> bytes:
    """A value as JSON; raises RunFailed. Halves of characters are kept and escaped: the other may follow."""
    try:
        try:
            return msgspec.json.encode(value)
        except UnicodeEncodeError:
            return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError):
        no_step("the agent yielded a value that is not JSON")


def no_step(said: str) -> NoReturn:
    """Fail the run: the agent does not keep to its contract. The text holds no values."""
    raise RunFailed(said)
