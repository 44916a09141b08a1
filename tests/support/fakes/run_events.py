"""Run events as a fold is fed with them, in a few words, and strategies that make up whole runs."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from agent_gateway.backend.fold.artifacts import as_stored
from agent_gateway.backend.fold.conclusion import conclude
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import RunEvent
from agent_gateway.domain.events import MAX_CHUNK, AgentThought, LLMChunk, Result, TurnEvent
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.turns import Step


def event(kind: str, data: Any = None, **extra: Any) -> RunEvent:
    raw = msgspec.Raw(json.dumps({} if data is None else data).encode())
    return RunEvent(type=kind, id="1-0", data=raw, **extra)


def agent(kind: str, **data: Any) -> RunEvent:
    return event("pydantic_ai_event", {"event_kind": kind, **data}, agent_message_delta=None)


def delta(text: str) -> RunEvent:
    return event("pydantic_ai_event", {"event_kind": "part_delta"}, agent_message_delta=text)


def think(text: str, *, start: bool = False) -> RunEvent:
    if start:
        return agent("part_start", part={"part_kind": "thinking", "content": text})
    return agent("part_delta", delta={"part_delta_kind": "thinking", "content_delta": text})


def thought_over() -> RunEvent:
    return agent("part_end", part={"part_kind": "thinking", "content": "ignored"})


def call(name: str, call_id: str = "c1", args: Any = "{}") -> RunEvent:
    return agent("function_tool_call", part={"tool_name": name, "tool_call_id": call_id, "args": args})


def result(name: str | None, call_id: str = "c1", content: Any = "done", key: str = "part") -> RunEvent:
    part = {"tool_name": name, "tool_call_id": call_id, "content": content, "part_kind": "tool-return"}
    return agent("function_tool_result", **{key: part})


def file(data: bytes, media_type: Any = "image/png") -> RunEvent:
    content = {"data": base64.b64encode(data).decode(), "media_type": media_type, "kind": "binary"}
    return agent("part_start", part={"part_kind": "file", "content": content})


def succeeded(**data: Any) -> RunEvent:
    return event("run_succeeded", data)


def fed(*events: RunEvent) -> tuple[Fold, list[TurnEvent]]:
    fold = Fold()
    return fold, fold.feed(events)


def stored(fold: Fold) -> list[StoredFile]:
    """The run's artifacts, as if all of them had been stored."""
    return [as_stored(made, "0192f3a0-0000-7000-8000-000000000001") for made in fold.files]


def ended(*events: RunEvent, stop_asked: bool = False) -> Result:
    return conclude(fed(*events)[0], stop_asked=stop_asked)


def steps_told(told: Sequence[TurnEvent]) -> list[Step]:
    return [event.step for event in told if isinstance(event, AgentThought)]


def texts_told(told: Sequence[TurnEvent]) -> list[str]:
    return [event.text for event in told if isinstance(event, LLMChunk)]


words = st.text(max_size=8) | st.sampled_from(["\x00", "\ud83d", "\ude00", "x" * 40, "y" * (MAX_CHUNK + 1)])
calls = st.sampled_from(["", "1", "2", "3"])
names = st.sampled_from(["weather", "final_output", "time"])
run_events = (
    st.builds(delta, words)
    | st.builds(think, words, start=st.booleans())
    | st.builds(thought_over)
    | st.builds(call, names, calls, words)
    | st.builds(result, names | st.none(), calls, words | st.integers() | st.lists(words, max_size=2))
    | st.just(agent("final_result", tool_name=None))
    | st.builds(file, st.binary(max_size=4), words | st.sampled_from(["image/png", "text/html", None]))
)
ends = st.sampled_from(
    [
        succeeded(output="Hi", session_snapshot={}),
        succeeded(output=None),
        succeeded(output={"a": "b" * (MAX_CHUNK + 1)}),
        succeeded(deferred_tool_call={"args": {"question": "Sure?"}}),
        event("run_failed", {"reason": "shutdown"}),
        event("run_cancelled"),
    ]
)
runs = st.lists(run_events, max_size=40)
