"""What only turns can tell: when events arrive, whether streams resume, stop, and stay open while silent."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from agent_gateway.cli.doctor.client import Answer, Broken, Frame, Gateway, Silent, Stream, frames_in
from agent_gateway.cli.doctor.surface import tried
from agent_gateway.cli.findings import Finding

SHORT, LONG, LONGEST = "Count to 60.", "Count to 300.", "Count to 5000."
"""The demo agent counts word by word, and so does any model."""
TURN_SECONDS: Final = 60.0
"""How long a turn of these is read."""
STOP_SECONDS: Final = 20.0
"""How long a stop may take until its stream ends."""
PART: Final = 3
"""Events that are read before a stream is left."""
HEAD_SECONDS: Final = 2.5
"""The gateway sends the first bytes of a stream within one second."""
AT_ONCE: Final = 0.3
"""Seconds within which a whole stream came at once."""
MANY: Final = 20
"""Events from which on it can be told whether they come one by one."""
CLUSTER: Final = 5
"""Events per read from which on they do not."""
TOO_SHORT: Final = "cannot be told: the agent's answer was too short"
UNBUFFER: Final = (
    "turn off the buffering and compression of responses (nginx: `proxy_buffering off; gzip off;` and no "
    "`proxy_ignore_headers X-Accel-Buffering`; Caddy: `flush_interval -1`)"
)
LENGTHEN: Final = "raise the read timeout of the proxy (nginx: `proxy_read_timeout 1h;`)"


def look(gateway: Gateway, idle: float) -> Iterator[Finding]:
    """All these points; `idle` is how many seconds a silent stream is held open."""
    conversations: set[str] = set()
    try:
        frames = yield from _whole(gateway, conversations)
        if not frames:
            return
        yield tried("resume", lambda: _resume(gateway, frames))
        yield from _cut_and_stop(gateway, conversations)
        if idle:
            yield tried("idle", lambda: _idle(gateway, conversations, idle))
    finally:
        for conversation in conversations:
            with suppress(Broken):
                gateway.ask("DELETE", f"/conversations/{conversation}", {})


def _message(query: str, mode: str = "streaming", **more: str) -> dict[str, Any]:
    return {"query": query, "inputs": {}, "response_mode": mode, "auto_generate_name": False, **more}


def _whole(gateway: Gateway, conversations: set[str]) -> Generator[Finding, None, list[Frame]]:
    """A turn from beginning to end: when its first byte came, and the others. Returns its events."""
    sent = time.monotonic()
    try:
        with gateway.stream("POST", "/chat-messages?ids=1", _message(SHORT)) as stream:
            frames = []
            for frame in stream.frames(sent + TURN_SECONDS):
                conversations.add(frame.event["conversation_id"])
                frames.append(frame)
    except Broken as error:
        yield Finding("first byte", False, _refused(str(error), gateway.user))
        return []
    if not frames or not frames[-1].is_last:
        yield Finding("first byte", False, f"the turn did not end within {TURN_SECONDS:g} s")
        return []
    end = frames[-1].event
    if end["event"] == "error":
        hint = f"see `agent-gateway turns show {end['task_id']}`"
        yield Finding("first byte", False, f"the turn failed with {end['code']}: {hint}")
        return []
    first = (stream.first_at or stream.head_at) - sent
    told = f"after {first:.2f} s, the first event after {frames[0].at - sent:.2f} s"
    yield Finding("first byte", True, f"{told}, all {len(frames)} after {frames[-1].at - sent:.2f} s")
    yield tried("buffering", lambda: _compressed(gateway, end["task_id"]) or _buffering(stream, frames, sent))
    return frames


def _refused(told: str, user: str) -> str:
    if told.endswith(" invalid_param"):
        return f"{told}: if the app wants inputs, take the key of another app"
    return f"{told}: `agent-gateway turns list --user {user} --since 5m` has the cause, if a turn began"


def _compressed(gateway: Gateway, task_id: str) -> tuple[bool, str] | None:
    """Browsers accept compressed streams, which come late: something may compress for them."""
    answer = gateway.ask("GET", _events_path(gateway, task_id), headers={"Accept-Encoding": "gzip, br, zstd"})
    encoding = answer.headers.get("Content-Encoding", "identity")
    return None if encoding == "identity" else (False, f"streams are compressed on the way: {UNBUFFER}")


def _buffering(stream: Stream, frames: list[Frame], sent: float) -> tuple[bool, str]:
    """Whether the events came as they were made: many in one read, after a while, means that they did not."""
    if "Content-Length" in stream.answer.headers:
        return False, f"the whole stream was collected before it was sent: {UNBUFFER}"
    took = frames[-1].at - sent
    first = (stream.first_at or stream.head_at) - sent
    if first > HEAD_SECONDS and took - first < AT_ONCE:
        return False, f"nothing came for {first:.1f} s, then all {len(frames)} events at once: {UNBUFFER}"
    reads = len(stream.reads)
    if len(frames) < MANY or took < 1.0:
        return True, f"cannot be told: {len(frames)} events in {took:.1f} s are too few, or too fast"
    if len(frames) >= CLUSTER * reads:
        return False, f"{len(frames)} events came in {reads} clusters: {UNBUFFER}"
    return True, f"none: {len(frames)} events came in {reads} reads"


def _events_path(gateway: Gateway, task_id: str) -> str:
    return f"/chat-messages/{task_id}/events?{gateway.as_query}"


def _resume(gateway: Gateway, frames: list[Frame]) -> tuple[bool, str]:
    """An ended turn is read again, from its beginning and from its middle."""
    path = _events_path(gateway, frames[0].event["task_id"])
    middle = frames[len(frames) // 2].id
    rest = [frame.raw for frame in frames if frame.id > middle]
    with gateway.connection() as connection:
        gateway.open(connection)
        before = connection.sock
        whole = gateway.ask("GET", path, on=connection)
        is_same = connection.sock is before
        again = gateway.ask("GET", f"{path}&after={middle}", on=connection)
    other = gateway.ask("GET", path, headers={"Last-Event-ID": str(middle)})
    if _raw(whole) != [frame.raw for frame in frames]:
        return (
            False,
            "read again, the events are others than before: does a proxy change or cache them?",
        )
    if _raw(other) != rest:
        return (
            False,
            "another connection does not get exactly the rest: does a proxy drop Last-Event-ID?",
        )
    if _raw(again) != rest:
        return (
            False,
            "the same connection does not get exactly the rest: does a proxy drop `?after=`?",
        )
    where = "the same connection" if is_same else "a new connection (the first was closed after its answer)"
    return True, f"exactly the rest, on {where} and on another one"


def _raw(answer: Answer) -> list[bytes]:
    return [frame.raw for frame in frames_in(answer.body.split(b"\n\n"))]


def _cut_and_stop(gateway: Gateway, conversations: set[str]) -> Iterator[Finding]:
    """A running turn is left, followed on another connection, and stopped."""
    try:
        with gateway.stream("POST", "/chat-messages?ids=1", _message(LONG)) as stream:
            first = list(islice(stream.frames(time.monotonic() + TURN_SECONDS), PART))
        if len(first) < PART or first[-1].is_last:
            for point in ("reconnect", "stop"):
                yield Finding(point, True, TOO_SHORT)
            return
        task_id, conversation = (str(first[0].event[name]) for name in ("task_id", "conversation_id"))
        conversations.add(conversation)
        path = _events_path(gateway, task_id)
        second, answer, took = _followed_and_stopped(gateway, task_id, first[-1].id)
        stored = frames_in(gateway.ask("GET", path).body.split(b"\n\n"))
    except Broken as error:
        yield Finding("reconnect", False, str(error))
        return
    yield _same_text([*first, *second], stored)
    yield Finding("stop", *_stopped(answer, second, took))


def _followed_and_stopped(
    gateway: Gateway, task_id: str, after: int
) -> tuple[list[Frame], Answer | None, float]:
    """The events after a position up to the end, the answer to the stop, and the seconds that it took.

    No answer when the turn ended before it was stopped.
    """
    with gateway.stream("GET", _events_path(gateway, task_id), after=after) as stream:
        events = stream.frames(time.monotonic() + TURN_SECONDS)
        frames = list(islice(events, PART))
        asked = time.monotonic()
        if _is_over(frames):
            return frames, None, 0.0
        answer = gateway.ask("POST", f"/chat-messages/{task_id}/stop", {})
        stream.end = asked + STOP_SECONDS
        frames += events
        return frames, answer, time.monotonic() - asked


def _is_over(frames: list[Frame]) -> bool:
    return bool(frames) and frames[-1].is_last


def _same_text(read: list[Frame], stored: list[Frame]) -> Finding:
    if _text(read) == _text(stored):
        return Finding("reconnect", True, "a cut stream went on, on another connection, without a loss")
    return Finding("reconnect", False, "what came over two connections is not the answer that is stored")


def _text(frames: list[Frame]) -> str:
    """What a client shows."""
    text = ""
    for frame in frames:
        event = frame.event
        if event["event"] in ("message", "agent_message"):
            text += event["answer"]
        elif event["event"] == "message_replace":
            text = event["answer"]
    return text


def _stopped(answer: Answer | None, frames: list[Frame], took: float) -> tuple[bool, str]:
    if answer is None:
        return True, TOO_SHORT
    if answer.status != 200:
        return False, f"POST …/stop answers {answer.told}"
    if not frames[-1].is_last:
        return (
            False,
            f"the stream did not end within {STOP_SECONDS:g} s: see `agent-gateway turns list`",
        )
    return True, f"the stream ended {took:.2f} s after it was asked for"


def _idle(gateway: Gateway, conversations: set[str], seconds: float) -> tuple[bool, str]:
    """Holds the stream of a turn open that waits behind another: only pings come."""
    first = gateway.ask("POST", "/chat-messages", _message(LONGEST, "background"))
    if first.status != 202:
        raise Broken(f"POST /chat-messages is answered with {first.told}")
    conversation = str(first.json["conversation_id"])
    conversations.add(conversation)
    tasks = [str(first.json["task_id"])]
    try:
        waiting = _message("Say OK.", "background", conversation_id=conversation)
        second = gateway.ask("POST", "/chat-messages", waiting)
        if second.status != 202:
            return True, "cannot be told: the app takes no message while another is answered"
        tasks.append(str(second.json["task_id"]))
        return _held(gateway, tasks[-1], seconds)
    finally:
        for task_id in reversed(tasks):
            with suppress(Broken):
                gateway.ask("POST", f"/chat-messages/{task_id}/stop", {})


def _held(gateway: Gateway, task_id: str, seconds: float) -> tuple[bool, str]:
    asked = time.monotonic()
    try:
        with gateway.stream("GET", _events_path(gateway, task_id)) as stream:
            found = next(iter(stream.frames(time.monotonic() + seconds)), None)
            held = time.monotonic() - stream.head_at
    except Silent as error:
        return False, f"a stream without events brought {error}, not even pings: {UNBUFFER}"
    except Broken as error:
        held = time.monotonic() - asked
        return False, f"a stream without events broke after {held:.1f} s ({error}): {LENGTHEN}"
    told = f"a stream without events stayed open for {held:.0f} s, with pings every {stream.silence:.1f} s"
    if found is not None:
        return True, f"{told}; then the agent had answered, so more cannot be told"
    return True, f"{told}; --idle tries longer"
