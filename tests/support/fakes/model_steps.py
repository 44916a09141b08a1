"""Steps of the fake model provider: what it answers to one request of a model.

    answer("Hi ", "there!")                             # text, one delta each
    answer(think("Hm."), call("add", {"a": 1, "b": 2}), call("clock", {}))
    answer("Half ", Cut())
    refuse(429, headers={"retry-after": "1"})

Parts happen in order. A `Gate` among them holds the answer there until the test opens it.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.support.fakes.script import Gate

ThoughtStyle = Literal["reasoning_content", "reasoning", "tags"]
"""How a chat completion tells thoughts: in one of two fields, or as `<think>…</think>` in the text."""


@dataclass(frozen=True)
class Thought:
    """Reasoning, one delta per piece. The responses API has one style of its own, a summary."""

    pieces: tuple[str, ...]
    style: ThoughtStyle


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool. Calls beside each other are parallel; their fragments come in turns."""

    name: str
    arguments: str
    """JSON, or what a test wants in its place."""
    id: str | None
    """None: one that no other call has."""
    fragments: int
    """Into how many deltas the arguments are cut."""


@dataclass(frozen=True)
class Raw:
    """Bytes on the wire as they are: garbage, half a frame. In an answer that is not streamed: its body."""

    bytes: bytes


@dataclass(frozen=True)
class Cut:
    """The connection breaks; nothing after it is sent."""


@dataclass(frozen=True)
class StreamError:
    """An error object inside a stream that began with 200; nothing after it is sent."""

    message: str
    code: str | None = "server_error"


OtherPart = str | Thought | Raw | Cut | StreamError | Gate
Part = OtherPart | ToolCall
"""A string is a delta of the text."""


@dataclass(frozen=True)
class Answer:
    """A 200 with these parts, streamed if the request asks for that."""

    parts: tuple[Part, ...]
    finish: str | None
    """The finish reason of a chat completion (`stop`, `length` …); None: it ends without one."""
    usage: tuple[int, int]
    """Tokens of the prompt and of the completion."""
    held: Gate | None
    """Nothing is sent, not even the status, until this is open."""


@dataclass(frozen=True)
class Refusal:
    """Another answer than one of the API: a status, headers and a body as they are."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    held: Gate | None = None


@dataclass
class ModelRequest:
    """One request that the provider got."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: dict[str, Any]
    abandoned: bool = False
    """Whether the client closed the connection before the answer had ended."""

    @property
    def model(self) -> str:
        """The model that it names."""
        return str(self.body["model"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of a chat completion, or the input items of a response."""
        found: list[dict[str, Any]] = self.body["messages"] if "messages" in self.body else self.body["input"]
        return found

    @property
    def instructions(self) -> str:
        """All that the system says, or the developer."""
        said = [self.body.get("instructions") or ""]
        said += [_text(one["content"]) for one in self.messages if one.get("role") in ("system", "developer")]
        return "\n\n".join(filter(None, said))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [(tool.get("function") or tool)["name"] for tool in self.body.get("tools") or []]

    @property
    def results(self) -> list[str]:
        """The results of tools, oldest first."""
        chat = [_text(one["content"]) for one in self.messages if one.get("role") == "tool"]
        return chat + [
            _text(one["output"]) for one in self.messages if one.get("type") == "function_call_output"
        ]

    @property
    def images(self) -> list[str]:
        """The URLs of its images, `data:` for those that come with it."""
        parts = [part for one in self.messages for part in _parts(one.get("content"))]
        urls = [part["image_url"] for part in parts if part["type"] in ("image_url", "input_image")]
        return [url if isinstance(url, str) else url["url"] for url in urls]


Step = Answer | Refusal | str
"""A string is an answer with this text."""
StepSource = Step | Callable[[ModelRequest], Step | Awaitable[Step]]
"""A step, or what makes one from the request."""

NO_RETRY: Final = {"x-should-retry": "false"}
"""Headers that keep the SDK of OpenAI from trying again."""


def answer(
    *parts: Part, finish: str | None = "", usage: tuple[int, int] = (11, 3), held: Gate | None = None
) -> Answer:
    """An answer; without a finish reason it gets the one that fits: `tool_calls` or `stop`."""
    if finish == "":
        finish = "tool_calls" if any(isinstance(part, ToolCall) for part in parts) else "stop"
    return Answer(parts, finish, usage, held)


def think(*pieces: str, style: ThoughtStyle = "reasoning_content") -> Thought:
    """Thoughts, one delta per piece."""
    return Thought(pieces, style)


def call(name: str, arguments: object = None, *, id: str | None = None, fragments: int = 1) -> ToolCall:  # noqa: A002
    """A tool call. Arguments that are a string are sent as they are, others as JSON; none are `{}`."""
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    return ToolCall(name, arguments, id, fragments)


def refuse(
    status: int,
    message: str = "refused",
    *,
    code: str | None = None,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    held: Gate | None = None,
) -> Refusal:
    """An error as the API tells it; `kind` is its `type`."""
    error = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    given = {"content-type": "application/json", **(headers or {})}
    return Refusal(status, json.dumps(error).encode(), given, held)


def page(status: int, text: str = "Bad gateway", *, headers: Mapping[str, str] | None = None) -> Refusal:
    """A page of HTML, as proxies before a provider answer."""
    body = f"<!DOCTYPE html><html><body><h1>{text}</h1></body></html>"
    return Refusal(status, body.encode(), {"content-type": "text/html", **(headers or {})})


def _parts(content: object) -> list[dict[str, Any]]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _text(content: object) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in _parts(content))
