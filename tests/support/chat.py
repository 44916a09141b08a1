"""The actions of clients: post, listen, cut, resume, stop, look at the stored rows."""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.gateway_server import answer_of
from tests.support.json_type import Json
from tests.support.sse import Frame, FrameReader

PING = b"event: ping"


@dataclass(frozen=True)
class Heard:
    """A whole event stream, or the part of it that was read."""

    raw: bytes
    headers: httpx.Headers

    @property
    def blocks(self) -> list[bytes]:
        """Everything between two blank lines: events, pings, `retry:`."""
        return [frame.raw for frame in FrameReader().feed(self.raw)]

    @property
    def events(self) -> list[Json]:
        """The JSON of every event."""
        return [frame.json for frame in FrameReader().feed(self.raw) if frame.data]

    @property
    def frames(self) -> list[bytes]:
        """The blocks of events, byte by byte, without pings and `retry:`."""
        return [frame.raw for frame in FrameReader().feed(self.raw) if frame.data]

    @property
    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]

    @property
    def ids(self) -> list[int]:
        return [event["event_id"] for event in self.events]

    @property
    def answer(self) -> str:
        """The final text of a client that appends deltas."""
        return answer_of(self.events)

    @property
    def last(self) -> Json:
        return self.events[-1]

    @property
    def task_id(self) -> str:
        return str(self.events[0]["task_id"])

    @property
    def conversation_id(self) -> str:
        return str(self.events[0]["conversation_id"])

    def after(self, position: int) -> list[bytes]:
        """The frames beyond a position; of a stream with or without `id:` lines."""
        kept = zip(self.frames, self.events, strict=True)
        return [frame for frame, event in kept if event["event_id"] > position]


class Stream:
    """An open event stream, read block by block."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.headers = response.headers
        self._chunks = response.iter_raw()
        self._raw = b""
        self._reader = FrameReader()
        self._unread: deque[Frame] = deque()

    @property
    def task_id(self) -> str:
        return str(self.headers["X-Task-Id"])

    def block(self) -> bytes | None:
        """The next block, without the blank line; None at the end."""
        frame = self._frame()
        return None if frame is None else frame.raw

    def _frame(self) -> Frame | None:
        while not self._unread:
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._raw += chunk
            self._unread += self._reader.feed(chunk)
        return self._unread.popleft()

    def next(self) -> Json:
        """The next event, past pings."""
        while (frame := self._frame()) is not None:
            if frame.data:
                return frame.json
        raise AssertionError("the stream has ended")

    def until(self, text: str) -> list[Json]:
        """Events up to the one after which the answer ends in this text."""
        events = [self.next()]
        while not answer_of(events).endswith(text):
            events.append(self.next())
        return events

    def rest(self) -> Heard:
        """Everything from the start of the stream to its end."""
        for chunk in self._chunks:
            self._raw += chunk
        self._unread.clear()
        return Heard(self._raw, self.headers)


class Chat:
    """One end user at one gateway."""

    def __init__(self, client: httpx.Client, user: str) -> None:
        self.client = client
        self.user = user

    def post(
        self,
        query: str = "Hello",
        *,
        params: Json | None = None,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> httpx.Response:
        """POST /chat-messages, and all of its answer."""
        given: Json = {"query": query, "user": self.user, "inputs": {}, **body}
        return self.client.post("/chat-messages", json=given, params=params, headers=headers)

    def blocking(self, query: str = "Hello", **more: Any) -> Json:
        """A whole turn; its JSON."""
        return _json(self.post(query, response_mode="blocking", **more), 200)

    def background(self, query: str = "Hello", **more: Any) -> Json:
        """Begin a turn and go away."""
        return _json(self.post(query, response_mode="background", **more), 202)

    def streaming(self, query: str = "Hello", **more: Any) -> Heard:
        """A whole turn, streamed."""
        response = self.post(query, response_mode="streaming", **more)
        assert response.status_code == 200, response.text
        return Heard(response.content, response.headers)

    @contextmanager
    def open(
        self,
        query: str = "Hello",
        *,
        params: Json | None = None,
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> Generator[Stream]:
        """A turn, read while it runs; leaving cuts the connection."""
        given: Json = {
            "query": query,
            "user": self.user,
            "inputs": {},
            "response_mode": "streaming",
            **body,
        }
        with self.client.stream(
            "POST", "/chat-messages", json=given, params=params, headers=headers
        ) as response:
            if response.status_code != 200:
                raise AssertionError(response.read())
            yield Stream(response)

    def events(
        self, task_id: str, *, last_event_id: str | int | None = None, **params: Any
    ) -> httpx.Response:
        """GET the events of a turn, all of them."""
        headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        return self.client.get(
            f"/chat-messages/{task_id}/events", params={"user": self.user, **params}, headers=headers
        )

    def resumed(self, task_id: str, **more: Any) -> Heard:
        """The events of a turn to its end."""
        response = self.events(task_id, **more)
        assert response.status_code == 200, response.text
        return Heard(response.content, response.headers)

    @contextmanager
    def follow(self, task_id: str, **params: Any) -> Generator[Stream]:
        """The events of a turn, read while it runs."""
        given = {"user": self.user, **params}
        with self.client.stream("GET", f"/chat-messages/{task_id}/events", params=given) as response:
            assert response.status_code == 200, response.read()
            yield Stream(response)

    def stop(self, task_id: str) -> Json:
        """Stop a turn."""
        return _json(self.client.post(f"/chat-messages/{task_id}/stop", json={"user": self.user}), 200)

    def messages(self, conversation_id: str, **params: Any) -> list[Json]:
        """The newest messages of a conversation, oldest first."""
        given = {"conversation_id": conversation_id, "user": self.user, **params}
        data: list[Json] = _json(self.client.get("/messages", params=given), 200)["data"]
        return data

    def message(self, conversation_id: str) -> Json:
        """The newest message of a conversation."""
        return self.messages(conversation_id)[-1]

    def conversations(self, **params: Any) -> Json:
        """A page of conversations."""
        return _json(self.client.get("/conversations", params={"user": self.user, **params}), 200)


def _json(response: httpx.Response, status: int) -> Json:
    assert response.status_code == status, response.text
    body: Json = response.json()
    return body


def forged(ticket: str) -> str:
    """The ticket with another signature. The last characters of base64 may stand for the same bytes."""
    signed, _, signature = ticket.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def refused(response: httpx.Response, status: int, code: str) -> Json:
    """The body of an error, which has the envelope and nothing foreign."""
    assert response.status_code == status, response.content
    body: Json = response.json()
    assert (body["code"], body["status"]) == (code, status)
    assert isinstance(body["message"], str)
    assert body["message"]
    return body
