"""Requests whose answer is an event stream, and where that stream goes on after a cut: pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

Params = Mapping[str, str | int]
Mode = Literal["chat", "agent-chat", "agent"]
"""Which events a stream has."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A request for an event stream."""

    method: str
    url: str = field(repr=False)
    """A path of the gateway, or a whole URL. It may hold a ticket."""
    params: Params = field(default_factory=dict[str, str | int], repr=False)
    content: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    with_key: bool = True
    """Whether it carries the API key; a URL with a ticket goes without."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the events of a turn are, for a request that says after which of them."""

    url: str = field(repr=False)
    params: Params = field(repr=False)
    with_key: bool

    def after(self, event_id: int) -> StreamRequest:
        """The request for all events after this one."""
        return StreamRequest("GET", self.url, {**self.params, "after": event_id}, with_key=self.with_key)


def path_of(*parts: str) -> str:
    """A path of these parts; none of them can leave its place."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def place_of_task(task_id: str, user: str, mode: Mode | None) -> Place:
    """The events of a turn, read with the API key."""
    return Place(path_of("chat-messages", task_id, "events"), _with_mode({"user": user}, mode), True)


def place_of_ticket(events_url: str, task_id: str, mode: Mode | None) -> Place:
    """The events of a turn, read with the ticket of an `events_url` at the gateway that gave it.

    Its host may be the one that browsers know, which this process may not reach.
    """
    tickets = parse_qs(urlsplit(events_url).query).get("ticket", [""])
    params = _with_mode({"ticket": tickets[0]}, mode)
    return Place(path_of("chat-messages", task_id, "events"), params, False)


def place_of_url(events_url: str, mode: Mode | None) -> Place:
    """The events of a turn, at a URL with a ticket."""
    url = urlsplit(events_url)
    params = {name: values[-1] for name, values in parse_qs(url.query).items()}
    # The parameters stand in one place: httpx drops those of a URL for those beside it.
    return Place(url._replace(query="", fragment="").geturl(), _with_mode(params, mode), False)


def message_request(body: Mapping[str, object], mode: Mode | None, idempotency_key: str) -> StreamRequest:
    """The request that begins a turn; repeated, it gets the same turn."""
    # Made once: under one key the body must be the same, byte by byte.
    content = json.dumps({**body, "response_mode": "streaming"}).encode()
    headers = {"Idempotency-Key": idempotency_key, "Content-Type": "application/json"}
    return StreamRequest("POST", "/chat-messages", _with_mode({}, mode), content, headers)


def form_request(form_token: str, body: Mapping[str, object]) -> StreamRequest:
    """The request that submits a form. Its answer names the turn."""
    path = path_of("form", "human_input", form_token)
    return StreamRequest("POST", path, {}, json.dumps(body).encode(), {"Content-Type": "application/json"})


def answer_request(message_id: str, user: str) -> StreamRequest:
    """The request for the turn that carries the answer of a question, before there is one."""
    return StreamRequest("GET", path_of("workflow", message_id, "events"), {"user": user})


def _with_mode(params: Params, mode: Mode | None) -> Params:
    return params if mode is None else {**params, "mode": mode}
