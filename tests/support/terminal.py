"""A program in a real terminal: what a person sees of it, types into it, and interrupts."""

import os
import pty
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from tests.support.gateway_server import wait_until

BOUND: Final = 60.0
"""Seconds after which a wait has failed."""
OWN_TERMINAL: Final = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Only a program whose terminal this is gets the signals of its keys."""
ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class TerminalProgram:
    """A Python program with these arguments, which was started in a terminal of its own."""

    def __init__(self, arguments: list[str], folder: Path, environ: Mapping[str, str]) -> None:
        self._terminal, side = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, sys.executable, *arguments],
            cwd=folder,
            # A terminal that the library of input lines sends no sequences of its own.
            env={**environ, "TERM": "vt100"},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        self.raw = ""
        """All that it has shown, escape sequences included."""
        self._seen = 0

    @property
    def text(self) -> str:
        """All that a person has seen."""
        return ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def expect(self, text: str) -> str:
        """Wait until this is shown, behind what was expected before; returns all that was new."""
        end = time.monotonic() + BOUND
        while text not in self.text[self._seen :]:
            if not self._read(end):
                pytest.fail(f"{text!r} was not shown: {self.raw!r}")
        start = self._seen
        self._seen = self.text.index(text, start) + len(text)
        return self.text[start : self._seen]

    def press(self, text: str) -> None:
        """Press keys: `\\x03` is Ctrl-C, `\\x04` is Ctrl-D."""
        if text == "\x03":
            # Between a prompt and the wait for its line, Python notes a signal and does not act on it.
            process = psutil.Process(self._process.pid)
            wait_until(lambda: process.status() == psutil.STATUS_SLEEPING)
        os.write(self._terminal, text.encode())

    def exited(self) -> int:
        """Read to its end; the exit status."""
        end = time.monotonic() + BOUND
        while self._read(end):
            pass
        return self._process.wait(BOUND)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(BOUND)
        os.close(self._terminal)

    def _read(self, end: float) -> bool:
        """Take more of what it shows; False at its end, or when it shows nothing in time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._terminal, selectors.EVENT_READ)
            if not selector.select(max(0.0, end - time.monotonic())):
                return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            # The last program that had the terminal has ended.
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)
