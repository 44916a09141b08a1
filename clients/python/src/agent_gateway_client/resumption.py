"""One turn as its reader sees it, over any number of connections: pure, without a socket and without a clock.

A driver (`turn.py`, `async_turn.py`) sends `next_request()`, hands over what comes back, and waits as long as
`pause()` says, until `ended`:

    while not resumption.ended:
        request = resumption.next_request()
        … opens(status, headers) → each SSE event: receive(data)
        … or, for any other response: answered(status, headers, body)
        … or lost(reason, cause)
        wait for pause() seconds
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, get_args, get_type_hints

from agent_gateway_client.answer import Answer
from agent_gateway_client.errors import (
    ConnectionLost,
    FormSubmitted,
    GatewayError,
    UnexpectedResponse,
    error_of,
    error_of_response,
)
from agent_gateway_client.openings import (
    Mode,
    Place,
    StreamRequest,
    answer_request,
    place_of_task,
    place_of_ticket,
)
from agent_gateway_client.retry import Attempts, Retry, is_passing
from agent_gateway_client.types import ChatStreamEvent
from agent_gateway_client.types import FormSubmitted as FormSubmittedBody

KNOWN_EVENTS: Final = frozenset(
    name for kind in get_args(ChatStreamEvent) for name in get_args(get_type_hints(kind)["event"])
)
"""A newer gateway may send others: they are skipped."""
EVENT_STREAM: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Reconnect:
    """A connection was lost, and another one will be tried."""

    failures: int
    """Failures in a row, this one counted."""
    seconds: float
    """The pause before the next try."""
    cause: GatewayError
    """What went wrong."""
    after: int
    """`event_id` of the last event that was received; 0 before the first."""


class Damaged(Exception):
    """A whole event that cannot be read. A cut loses events, but does not damage them: a proxy did."""


OnReconnect = Callable[[Reconnect], None]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a turn, and how."""

    user: str
    retry: Retry
    mode: Mode | None = None
    """App mode of the stream; None: the app's own."""
    on_reconnect: OnReconnect | None = None


class Resumption:
    """Begins with an opening request, or at a place where the events of a turn are known to be."""

    def __init__(
        self,
        reader: Reader,
        opening: StreamRequest | None = None,
        place: Place | None = None,
        *,
        after: int = 0,
        text: str = "",
        question: str = "",
    ) -> None:
        self._reader = reader
        self._opening = opening
        self._place = place
        self._attempts = Attempts(reader.retry)
        self._failure: GatewayError | None = None
        """Why the last connection ended before the turn did."""
        self._may_have_worked = False
        """Whether an opening request was sent without a response that says what became of it."""
        self._answer = Answer(text, from_start=after == 0, is_agent=reader.mode == "agent")
        self.last_event_id = after
        self.task_id: str | None = None
        self.conversation_id: str | None = None
        self.message_id: str | None = None
        self.events_url: str | None = None
        self._question = question
        """The message that asks, when the opening request submits its form."""
        self.error: GatewayError | None = None
        """Why the turn failed, if it did."""
        self.ended = False
        self.is_stopping = False
        """Whether the turn is to be stopped as soon as its id is known."""

    @property
    def text(self) -> str:
        """The text so far."""
        return self._answer.text

    def next_request(self) -> StreamRequest:
        """The request for what is left."""
        self._failure = None
        if self._place is not None:
            return self._place.after(self.last_event_id)
        assert self._opening is not None
        return self._opening

    def opens(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether the response is an event stream; its events go to `receive`."""
        if status != HTTPStatus.OK or not headers.get("content-type", "").startswith(EVENT_STREAM):
            return False
        self._answer.reconnected()
        if events_url := headers.get("x-turn-events-url"):
            self.events_url = events_url
        if task_id := headers.get("x-task-id"):
            self._found(task_id)
        return True

    def receive(self, data: str) -> ChatStreamEvent | None:
        """The event of this data; None for a ping and for what this client does not know. Raises Damaged."""
        # A stream that lives is a success, even before its first event: a queued turn only pings.
        self._attempts.succeeded()
        if not data:
            return None
        try:
            event: ChatStreamEvent = json.loads(data)
            self._found(event["task_id"])
            self.last_event_id = event["event_id"]
        except (ValueError, KeyError, TypeError):
            raise Damaged("an event of the stream was damaged on its way") from None
        if event["event"] not in KNOWN_EVENTS:
            return None
        self.conversation_id = event["conversation_id"]
        self.message_id = event["message_id"]
        self._answer.add(event)
        if event["event"] == "error":
            self.error = error_of(event["code"], event["message"], event["status"])
        self.ended = event["event"] in ("message_end", "error")
        return event

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Take a response that is no event stream. Raises the GatewayError that it tells, if it is final."""
        if status == HTTPStatus.NO_CONTENT and self._place is not None:
            self.ended = True
            return
        if status == HTTPStatus.OK:
            self._submitted(body)
            return
        failure = error_of_response(status, body, headers.get("retry-after"))
        if self._place is not None:
            self._refused(failure)
        elif isinstance(failure, FormSubmitted) and self._may_have_worked:
            # An earlier try arrived, and only its response was lost: the turn of the answer has begun.
            self._opening = answer_request(self._question, self._reader.user)
            # That stream is in the app's mode.
            self._reader, self._answer = replace(self._reader, mode=None), Answer()
            self._may_have_worked = False
        elif is_passing(failure):
            self._may_have_worked = True
            self._failure = failure
        else:
            raise failure

    def _refused(self, failure: GatewayError) -> None:
        """A place whose events cannot be had now, or never."""
        if (
            failure.status < HTTPStatus.INTERNAL_SERVER_ERROR
            and failure.status != HTTPStatus.TOO_MANY_REQUESTS
        ):
            raise failure
        self._failure = failure

    def lost(self, reason: str, cause: Exception | None = None) -> None:
        """The connection could not be made, or it broke, or it was silent for too long."""
        self._may_have_worked = True
        self._failure = ConnectionLost(reason)
        self._failure.__cause__ = cause

    def stop_due(self) -> str | None:
        """The turn that is to be stopped, now that its id is known; told once."""
        if not self.is_stopping or self.task_id is None:
            return None
        self.is_stopping = False
        return self.task_id

    def pause(self) -> float:
        """The seconds until the next request. Raises the last failure after too many in a row."""
        if self._failure is None:
            return 0.0
        seconds = self._attempts.pause_after(self._failure)
        if self._reader.on_reconnect is not None:
            failures = self._attempts.failures
            self._reader.on_reconnect(Reconnect(failures, seconds, self._failure, self.last_event_id))
        return seconds

    def _found(self, task_id: str) -> None:
        self.task_id = task_id
        if self._place is None:
            self._place = place_of_task(task_id, self._reader.user, self._reader.mode)

    def _submitted(self, body: bytes) -> None:
        """The answer to a form: the turn that carries it belongs to the user who was asked."""
        try:
            told: FormSubmittedBody = json.loads(body)
            self.events_url, self.task_id = told["events_url"], told["task_id"]
        except (ValueError, KeyError, TypeError):
            raise UnexpectedResponse(HTTPStatus.OK) from None
        self._place = place_of_ticket(self.events_url, self.task_id, self._reader.mode)
        self._attempts.succeeded()
