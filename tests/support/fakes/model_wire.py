"""Answers of the fake model provider as bytes: chat completions and responses, streamed or whole."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tests.support.fakes.model_steps import Answer, Cut, OtherPart, Part, Raw, StreamError, Thought, ToolCall
from tests.support.fakes.script import Gate
from tests.support.json_type import Json

Piece = bytes | Gate | Cut
"""What goes onto the wire next."""
DONE = b"data: [DONE]\n\n"


def streamed(answer: Answer, *, responses: bool, number: int) -> Iterator[Piece]:
    """The events of a streamed answer; `number` makes the ids of tool calls."""
    yield from (Responses(number) if responses else ChatCompletion(number)).stream(answer)


def whole(answer: Answer, *, responses: bool, number: int) -> Iterator[Piece]:
    """What happens instead of a stream: the gates, and then one body."""
    yield from (part for part in answer.parts if isinstance(part, Gate))
    wrong = next((part for part in answer.parts if isinstance(part, Raw | Cut | StreamError)), None)
    match wrong:
        case Cut():
            yield wrong
        case Raw():
            yield wrong.bytes
        case StreamError():
            yield json.dumps({"error": {"message": wrong.message, "code": wrong.code}}).encode()
        case _:
            api = Responses(number) if responses else ChatCompletion(number)
            yield json.dumps(api.whole(answer)).encode()


class ChatCompletion:
    """One chat completion."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._base = {"id": f"c{number}", "created": 1, "model": "m"}

    def stream(self, answer: Answer) -> Iterator[Piece]:
        """Its chunks."""
        for part in _grouped(answer.parts):
            match part:
                case str():
                    yield self._delta({"role": "assistant", "content": part})
                case Thought():
                    yield from map(self._delta, _thoughts(part))
                case list():
                    yield from (self._delta({"tool_calls": [one]}) for one in self._calls(part))
                case StreamError():
                    yield _frame({"error": {"message": part.message, "type": None, "code": part.code}})
                    return
                case Raw():
                    yield part.bytes
                case Cut() | Gate():
                    yield part
        if answer.finish is not None:
            yield self._delta({}, answer.finish)
        yield self._chunk({"choices": [], "usage": self._usage(answer)})
        yield DONE

    def whole(self, answer: Answer) -> Json:
        """It as one object."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for part in _grouped(answer.parts):
            if isinstance(part, list):
                message["tool_calls"] = [
                    {"id": self._id(index, one), "type": "function", "function": _function(one)}
                    for index, one in enumerate(part)
                ]
            for delta in _thoughts(part) if isinstance(part, Thought) else [{"content": part}]:
                for key, text in delta.items():
                    if isinstance(text, str):
                        message[key] = (message.get(key) or "") + text
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        usage = {"usage": self._usage(answer)}
        return self._base | {"object": "chat.completion", "choices": [choice]} | usage

    def _calls(self, calls: list[ToolCall]) -> Iterator[Json]:
        """First who is called, then the fragments in turns."""
        for index, one in enumerate(calls):
            function = {"name": one.name, "arguments": ""}
            yield {"index": index, "id": self._id(index, one), "type": "function", "function": function}
        for index, fragment in _in_turns(calls):
            yield {"index": index, "function": {"arguments": fragment}}

    def _id(self, index: int, one: ToolCall) -> str:
        return one.id or f"call_{self._number}_{index}"

    def _delta(self, delta: Json, finish: str | None = None) -> bytes:
        return self._chunk({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _chunk(self, data: Json) -> bytes:
        return _frame(self._base | {"object": "chat.completion.chunk"} | data)

    def _usage(self, answer: Answer) -> Json:
        prompt, completion = answer.usage
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


class Responses:
    """One response of the responses API."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._sequence = -1
        self._output: list[dict[str, Any]] = []
        self._open = ""
        self._text = ""
        self._response: dict[str, Any] = {
            "id": f"r{number}", "object": "response", "created_at": 1, "model": "m", "tools": [],
            "status": "in_progress", "parallel_tool_calls": True, "tool_choice": "auto", "output": [],
        }  # fmt: skip

    def whole(self, answer: Answer) -> Json:
        """It as one object."""
        for _ in self.stream(answer):
            pass
        return self._ended(answer)

    def stream(self, answer: Answer) -> Iterator[Piece]:
        """Its events."""
        yield self._event("response.created", response=self._response)
        for part in _grouped(answer.parts):
            match part:
                case str():
                    yield from self._begin("message")
                    yield self._said(part)
                case Thought():
                    yield from self._begin("reasoning")
                    yield from map(self._said, part.pieces)
                case list():
                    yield from self._end()
                    yield from self._calls(part)
                case StreamError():
                    yield self._event("error", code=part.code, message=part.message, param=None)
                    return
                case Raw():
                    yield part.bytes
                case Cut() | Gate():
                    yield part
        yield from self._end()
        if answer.finish is not None:
            ended = self._ended(answer)
            yield self._event(f"response.{ended['status']}", response=ended)
        yield DONE

    def _ended(self, answer: Answer) -> Json:
        prompt, completion = answer.usage
        usage = {
            "input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        ended = self._response | {"output": self._output, "usage": usage}
        if answer.finish in ("stop", "tool_calls"):
            return ended | {"status": "completed"}
        why = "max_output_tokens" if answer.finish == "length" else answer.finish
        return ended | {"status": "incomplete", "incomplete_details": {"reason": why}}

    def _begin(self, kind: str) -> Iterator[bytes]:
        """Begin an item of text or thoughts, unless it is the one that is open."""
        if self._open == kind:
            return
        yield from self._end()
        self._open, self._text = kind, ""
        item: dict[str, Any] = {"id": f"i{self._number}_{len(self._output)}", "type": kind}
        if kind == "message":
            item |= {"role": "assistant", "status": "in_progress", "content": []}
            added = ("response.content_part.added", _output_text(""))
        else:
            item |= {"summary": []}
            added = ("response.reasoning_summary_part.added", {"type": "summary_text", "text": ""})
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=self._place["output_index"], item=item)
        yield self._event(added[0], part=added[1], **self._place)

    def _said(self, text: str) -> bytes:
        self._text += text
        if self._open == "message":
            return self._event("response.output_text.delta", delta=text, logprobs=[], **self._place)
        return self._event("response.reasoning_summary_text.delta", delta=text, **self._place)

    def _end(self) -> Iterator[bytes]:
        """End the item that is open."""
        if not self._open:
            return
        if self._open == "message":
            part = _output_text(self._text)
            self._output[-1] |= {"status": "completed", "content": [part]}
            yield self._event("response.output_text.done", text=self._text, logprobs=[], **self._place)
            yield self._event("response.content_part.done", part=part, **self._place)
        else:
            part = {"type": "summary_text", "text": self._text}
            self._output[-1] |= {"summary": [part]}
            yield self._event("response.reasoning_summary_text.done", text=self._text, **self._place)
            yield self._event("response.reasoning_summary_part.done", part=part, **self._place)
        self._open = ""
        index = len(self._output) - 1
        yield self._event("response.output_item.done", output_index=index, item=self._output[-1])

    def _calls(self, calls: list[ToolCall]) -> Iterator[bytes]:
        first = len(self._output)
        places = [
            {"output_index": first + index, "item_id": f"i{self._number}_{first + index}"}
            for index in range(len(calls))
        ]
        for index, (one, place) in enumerate(zip(calls, places, strict=True)):
            item = {
                "id": place["item_id"], "type": "function_call", "status": "in_progress", "name": one.name,
                "call_id": one.id or f"call_{self._number}_{index}", "arguments": "",
            }  # fmt: skip
            self._output.append(item)
            yield self._event("response.output_item.added", output_index=place["output_index"], item=item)
        for index, fragment in _in_turns(calls):
            yield self._event("response.function_call_arguments.delta", delta=fragment, **places[index])
        for one, place in zip(calls, places, strict=True):
            index = int(place["output_index"])
            done = self._output[index] = self._output[index] | _function(one) | {"status": "completed"}
            yield self._event("response.function_call_arguments.done", **_function(one), **place)
            yield self._event("response.output_item.done", output_index=index, item=done)

    @property
    def _place(self) -> dict[str, Any]:
        index = len(self._output) - 1
        part = "content_index" if self._open == "message" else "summary_index"
        return {"item_id": self._output[index]["id"], "output_index": index, part: 0}

    def _event(self, kind: str, **data: object) -> bytes:
        self._sequence += 1
        return _frame({"type": kind, "sequence_number": self._sequence, **data})


def _grouped(parts: Iterable[Part]) -> Iterator[OtherPart | list[ToolCall]]:
    """The parts, with tool calls beside each other as one list."""
    calls: list[ToolCall] = []
    for part in parts:
        if isinstance(part, ToolCall):
            calls.append(part)
            continue
        if calls:
            yield calls
            calls = []
        yield part
    if calls:
        yield calls


def _in_turns(calls: list[ToolCall]) -> Iterator[tuple[int, str]]:
    """The fragments of the arguments: the first of each call, then the second of each …"""
    cut = [_cut(one.arguments, one.fragments) for one in calls]
    for turn in range(max(map(len, cut))):
        for index, fragments in enumerate(cut):
            if turn < len(fragments):
                yield index, fragments[turn]


def _cut(text: str, count: int) -> list[str]:
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _function(one: ToolCall) -> Json:
    return {"name": one.name, "arguments": one.arguments}


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}


def _thoughts(thought: Thought) -> list[Json]:
    if thought.style == "tags":
        return [{"content": piece} for piece in ("<think>", *thought.pieces, "</think>")]
    return [{thought.style: piece} for piece in thought.pieces]


def _frame(data: Json) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
