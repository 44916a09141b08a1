"""The event stream of a short run as bytes."""

import json
from typing import Any, Final

RUN: Final = b'{"run_id":"run-1","status":"running"}'


def frame(number: int, kind: str, data: Any, delta: str | None = None) -> bytes:
    """One event with this number for an id."""
    fields = {"id": f"{number}-0", "run_id": "run-1", "type": kind, "data": data}
    if delta is not None:
        fields["agent_message_delta"] = delta
    return f"id: {number}-0\nevent: {kind}\ndata: {json.dumps(fields)}\n\n".encode()


def letter(number: int, text: str) -> bytes:
    """An event that says so."""
    return frame(number, "pydantic_ai_event", {"event_kind": "part_delta"}, text)


START: Final = frame(1, "run_started", {})
END: Final = frame(9, "run_succeeded", {"output": "", "session_snapshot": None})
FRAMES: Final = [START, letter(2, "a"), letter(3, "b\U0001f600"), END]
"""A run that says `ab` and an emoji."""
