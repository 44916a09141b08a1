"""Logging: one line per record, as text or JSON, on standard error. Message texts never get here.

A record says which turn, run and request it belongs to. Code that works for one of them binds its id with
`structlog.contextvars`; code that works for many passes the id as `extra`.
"""

import logging
import sys
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

FIELDS: Final = frozenset({"task_id", "run_id", "request_id"})
"""The fields that a record may have as `extra`. Libraries use `extra` for other values."""

_SHARED: Final[tuple[Processor, ...]] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.ExtraAdder(FIELDS),
    structlog.processors.TimeStamper("%Y-%m-%dT%H:%M:%S%z", utc=False, key="time"),
)


def configure(style: Literal["text", "json"]) -> None:
    """Send all logs of the process to standard error in this style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(style))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # These log each request with its full URL, which may hold secrets.
    for name in ("httpx", "httpx2", "httpcore", "openai", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def formatter(style: Literal["text", "json"]) -> logging.Formatter:
    """Formats records of the standard library. JSON has the keys time, level, logger and message."""
    rendering: tuple[Processor, ...]
    if style == "json":
        rendering = (
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        )
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=False,
            pad_event_to=0,
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
        )
        rendering = (_printable, console)
    return structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        foreign_pre_chain=_SHARED,
    )


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that a record stays one line and cannot control a terminal."""
    event["event"] = "".join(map(_shown, str(event["event"])))
    return event


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
