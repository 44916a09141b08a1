"""The ids that requests to the backend carry, so that its logs and traces join those of the gateway."""

from contextvars import ContextVar
from typing import Final

_HEADERS: Final[ContextVar[str]] = ContextVar("trace_headers", default="")


def bind_trace(request_id: str, traceparent: str) -> None:
    """From now on, what this task asks of the backend belongs to that request. Both ids were checked."""
    given = {"X-Request-Id": request_id, "traceparent": traceparent}
    _HEADERS.set("".join(f"{name}: {value}\r\n" for name, value in given.items() if value))


def trace_headers() -> str:
    """The lines for the head of a request to the backend; empty for what belongs to no request."""
    return _HEADERS.get()
