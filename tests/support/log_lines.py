"""The lines that a process has logged as JSON, and those that this process logs meanwhile."""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

from agent_gateway.logs import formatter

TURNS = "agent_gateway.turns.end_report"
REQUESTS = "agent_gateway.server.requests"

Line = dict[str, Any]


def lines_in(output: str, logger: str = "") -> list[Line]:
    """The lines of JSON in the output of a process, of this logger or those below it."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["logger"].startswith(logger)]


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[Line] = []
        self._formatter = formatter("json")

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self._formatter.format(record)))


@contextmanager
def kept_lines(logger: str) -> Generator[list[Line]]:
    """What this logger says in this process while this is entered, at every level."""
    named, kept = logging.getLogger(logger), _Kept()
    level = named.level
    named.addHandler(kept)
    named.setLevel(logging.DEBUG)
    try:
        yield kept.lines
    finally:
        named.setLevel(level)
        named.removeHandler(kept)
