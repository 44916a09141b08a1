"""Everything that the client raises on purpose.

    GatewayError                 the gateway refused a request, or a turn failed
    ├── InvalidParam             a parameter is wrong; `message` says which
    ├── Unauthorized             no key, a wrong one, or an expired ticket
    ├── NotFound                 unknown to this app and user
    ├── ConversationBusy         a turn is running: `task_id`, `events_url`
    ├── HumanInputRequired       a question is open: `message_id`, `form_token`
    ├── FormSubmitted            the form has been submitted
    ├── FormExpired              the form has expired
    ├── IdempotencyConflict      this Idempotency-Key had another body
    ├── TooLarge                 the request or the file is too large
    ├── TooManyRequests          a limit of the app or of its model provider
    ├── Unavailable              the gateway, its backend or a provider is away for a while
    ├── TurnInterrupted          the turn was interrupted; send the message again
    ├── TurnTimedOut             the agent did not answer in time
    ├── UnexpectedResponse       not an answer of a gateway: a proxy's page, or another service
    └── ConnectionLost           no answer; the cause is the error of httpx

A code that is not listed here is a plain GatewayError. Programs look at `code`; `message` is for people.
"""

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Final


class GatewayError(Exception):
    """The gateway refused a request, or a turn failed."""

    def __init__(
        self, code: str, message: str, status: int, details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code, message, status)
        self.code = code
        """What went wrong, for programs."""
        self.message = message
        """What went wrong, for people."""
        self.status = status
        """The HTTP status; 0 when there was no answer."""
        self.details: Mapping[str, str] = details or {}
        """Further fields of the body."""
        self.retry_after: float | None = None
        """Seconds after which the gateway wants to be asked again, if it said so."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class InvalidParam(GatewayError):
    """A parameter is wrong; the message says which."""


class Unauthorized(GatewayError):
    """No API key, a wrong one, or a ticket that has expired."""


class NotFound(GatewayError):
    """Unknown to this app and user."""


class ConversationBusy(GatewayError):
    """A turn of the conversation is running, and the app refuses messages meanwhile."""

    @property
    def task_id(self) -> str:
        """The running turn."""
        return self.details.get("task_id", "")

    @property
    def events_url(self) -> str:
        """Follows it without a key."""
        return self.details.get("events_url", "")


class HumanInputRequired(GatewayError):
    """A question is open, and the app refuses messages until its form is submitted."""

    @property
    def message_id(self) -> str:
        """The message that asks."""
        return self.details.get("message_id", "")

    @property
    def form_token(self) -> str:
        """Reads and submits the form."""
        return self.details.get("form_token", "")


class FormSubmitted(GatewayError):
    """The form has been submitted before."""


class FormExpired(GatewayError):
    """The form has expired."""


class IdempotencyConflict(GatewayError):
    """This Idempotency-Key was used with another body."""


class TooLarge(GatewayError):
    """The request or the file is too large."""


class TooManyRequests(GatewayError):
    """A limit of the app or of its model provider."""


class Unavailable(GatewayError):
    """The gateway, its backend or a provider is away for a while."""


class TurnInterrupted(GatewayError):
    """The turn was interrupted before it was complete; its message may be sent again."""


class TurnTimedOut(GatewayError):
    """The agent did not answer in time."""


class UnexpectedResponse(GatewayError):
    """Not an answer of a gateway: a proxy's page, or another service."""

    def __init__(self, status: int, message: str = "The response is not one of a gateway.") -> None:
        super().__init__("unexpected_response", message, status)


class ConnectionLost(GatewayError):
    """No answer, or a stream that broke too often; `__cause__` is the error of httpx, if there was one."""

    def __init__(self, reason: str) -> None:
        super().__init__("connection_lost", reason, 0)


BY_CODE: Final[Mapping[str, type[GatewayError]]] = {
    "invalid_param": InvalidParam,
    "unauthorized": Unauthorized,
    "not_found": NotFound,
    "end_user_not_found": NotFound,
    "file_not_found": NotFound,
    "conversation_busy": ConversationBusy,
    "human_input_required": HumanInputRequired,
    "human_input_form_submitted": FormSubmitted,
    "human_input_form_expired": FormExpired,
    "idempotency_conflict": IdempotencyConflict,
    "request_too_large": TooLarge,
    "file_too_large": TooLarge,
    "too_many_requests": TooManyRequests,
    "rate_limit_error": TooManyRequests,
    "service_unavailable": Unavailable,
    "provider_unavailable": Unavailable,
    "turn_interrupted": TurnInterrupted,
    "turn_timeout": TurnTimedOut,
}
"""The errors with a class of their own."""


def error_of(code: str, message: str, status: int, details: Mapping[str, str] | None = None) -> GatewayError:
    """The error of a code, as an instance of its class."""
    return BY_CODE.get(code, GatewayError)(code, message, status, details)


def error_of_response(status: int, body: bytes, retry_after: str | None) -> GatewayError:
    """The error that a response tells; UnexpectedResponse when it has no body of the gateway's."""
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if isinstance(fields, dict) and isinstance(fields.get("code"), str):
        details = {
            name: value
            for name, value in fields.items()
            if isinstance(value, str) and name not in ("code", "message")
        }
        error = error_of(fields["code"], str(fields.get("message", "")), status, details)
    else:
        error = UnexpectedResponse(status)
    error.retry_after = _seconds_of(retry_after)
    return error


def _seconds_of(retry_after: str | None) -> float | None:
    """The seconds of a `Retry-After`, which is a number or, from some proxies, a date."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time())
    except ValueError:
        return None
