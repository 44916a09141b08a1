"""Logging: one line per record, as text or JSON, on standard error. Message texts never get here."""

import json
import logging
import sys
from typing import Literal

from typing_extensions import override


class JSONFormatter(logging.Formatter):
    """One JSON object per record."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """One line per record, and its traceback after it."""

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        # What a terminal would act on is shown instead.
        return line if line.isprintable() else "".join(map(_shown, line))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def configure(style: Literal["text", "json"]) -> None:
    """Send all logs of the process to standard error in this style."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # One line per request to other services, with their full URLs, is noise at best.
    for name in ("httpx", "httpx2", "httpcore", "openai", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
