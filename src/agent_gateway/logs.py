"""Logging: one line per record, as text or JSON, on standard error. Message texts never get here.

A record says which turn, run and request it belongs to. Code that works for one of them binds its id with
`structlog.contextvars`; code that works for many passes the id as `extra`. Every request and every turn has a
line, so a line costs as little as it can: the formatter is our own.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, Final, Literal, TextIO

import msgspec
from structlog.contextvars import get_contextvars
from typing_extensions import override

FIELDS: Final = frozenset(
    {
        # which turn, run and request
        *("task_id", "run_id", "request_id", "app"),
        # of a request
        *("method", "route", "status", "seconds", "streamed", "left"),
        # of a turn that ended
        *("outcome", "code", "cause", "queued_seconds", "first_event_seconds", "backend_seconds"),
        *("chunks", "bytes", "tokens", "adoptions", "readers"),
        # of a start
        *("version", "database", "backend", "model", "data", "files", "public_url", "docs", "workers"),
        # of something that went wrong for a while
        *("failures",),
    }
)
"""The fields that a record may have as `extra`. Libraries use `extra` for other values."""

FLUSH_SECONDS: Final = 0.05
"""How long an ordinary line waits for others."""

Level = Literal["debug", "info", "warning", "error"]

_encoder: Final = msgspec.json.Encoder(enc_hook=str)


def configure(style: Literal["text", "json"], level: Level = "info") -> None:
    """Send all logs of the process to standard error in this style, from this level on."""
    # The formatter shows none of these, and collecting them costs as much as a line.
    for name in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, name, False)
    # The stack is not looked at for the place that logs: no line shows it.
    setattr(logging, "_srcfile", None)  # noqa: B010 - as its documentation says
    handler = _Batches(sys.stderr)
    handler.setFormatter(formatter(style))
    lowest = logging.getLevelNamesMapping()[level.upper()]
    # What libraries say below INFO is of no use here, and may quote what users wrote.
    logging.basicConfig(level=max(lowest, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("agent_gateway").setLevel(lowest)
    # These log each request with its full URL, which may hold secrets.
    for name in ("httpx", "httpx2", "httpcore", "openai", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def formatter(style: Literal["text", "json"]) -> logging.Formatter:
    """Formats records of the standard library. JSON has the keys time, level, logger, message, and fields."""
    return _Json() if style == "json" else _Text()


class _Batches(logging.StreamHandler[TextIO]):
    """Writes the lines of a moment at once: a write costs more than the line.

    A warning is written at once, with all before it, and so is every line outside of an event loop. A process
    that is killed loses FLUSH_SECONDS of lines.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
        except Exception:  # noqa: BLE001 - as all handlers do: a line is no reason to fail
            self.handleError(record)
            return
        # After the last line of the server's own life a signal ends the process, whatever is left.
        at_once = record.levelno >= logging.WARNING or record.name.startswith("uvicorn")
        if at_once or not self._will_flush():
            self.flush()

    @override
    def flush(self) -> None:
        # A full disk, or a reader of the pipe that has gone: nobody can be told, and no turn may fail for it.
        with self.lock or nullcontext(), suppress(OSError, ValueError):
            if self._lines:
                text = "\n".join(self._lines)
                self._lines.clear()
                self.stream.write(f"{text}\n")
            super().flush()

    def _will_flush(self) -> bool:
        """Whether the event loop of this thread will write soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._timer is None or self._timer.when() < loop.time():
            self._timer = loop.call_later(FLUSH_SECONDS, self.flush)
        return True


class _Json(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        try:
            return _encoder.encode(line).decode()
        except UnicodeEncodeError:
            # Halves of surrogate pairs: a record that cannot be written is worse than an escaped one.
            return json.dumps(line, default=str)


class _Text(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_value(value)}" for name, value in _fields(record).items())
        level, message = record.levelname.lower(), _printable(record.getMessage())
        line = f"{_time(record)} [{level:<8}] {message} [{record.name}]{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What is bound to the context, and what the record itself has; that counts more."""
    fields = {name: value for name, value in get_contextvars().items() if name in FIELDS}
    fields.update((name, value) for name, value in record.__dict__.items() if name in FIELDS)
    return fields


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))


def _value(value: object) -> str:
    """A value of the text style: quoted when it could be taken for more than one."""
    if not isinstance(value, str) and not isinstance(value, Mapping):
        return _encoder.encode(value).decode()
    text = value if isinstance(value, str) else _encoder.encode(value).decode()
    return _printable(text if text and " " not in text and '"' not in text else repr(text))


def _printable(text: str) -> str:
    """Escape control characters, so that a record stays one line and cannot control a terminal."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
