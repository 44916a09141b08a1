"""Where `agent-gateway chat` writes: a terminal, or a file or pipe that gets the answers alone.

What agents and gateways say is not trusted: a control character would be obeyed by the terminal.
"""

import io
import os
import re
import sys
from typing import Final, TextIO

CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""C0 and C1 without the tab and the line break."""
DIM: Final = "\x1b[2m"
PLAIN: Final = "\x1b[0m"


class Terminal:
    """Answers go to `out`. The rest goes there as well, dimmed, if that is a terminal, and else to `err`."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self.is_terminal = out.isatty()
        """Whether somebody watches: only then steps are shown."""
        has_colors = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._is_dimming = self.is_terminal and has_colors
        self._is_open = False
        """Whether the last line of `out` has not ended."""
        self._was_step = False
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                # A letter that the encoding does not have is a question mark, not the end.
                stream.reconfigure(errors="replace")

    def answer(self, text: str) -> None:
        """A piece of an answer, as soon as it is there."""
        self._write(text, is_step=False)

    def step(self, text: str) -> None:
        """A piece of a step of the agent; nothing where nobody watches."""
        if self.is_terminal:
            self._write(text, is_step=True)

    def aside(self, text: str) -> None:
        """A line about the chat itself."""
        if self.is_terminal:
            self.end_line()
            self._write(f"{one_line(text)}\n", is_step=True)
        else:
            print(one_line(text), file=self._err, flush=True)

    def error(self, text: str) -> None:
        """What went wrong, in one plain line."""
        if self.is_terminal:
            self.end_line()
        print(f"error: {one_line(text)}", file=self._err, flush=True)

    def end_line(self) -> None:
        """Go on at the beginning of a line."""
        if self._is_open:
            self._out.write("\n")
            self._out.flush()
            self._is_open = False

    def read(self, prompt: str) -> str:
        """A line that is typed. Raises EOFError and KeyboardInterrupt."""
        self.end_line()
        if self.is_terminal:
            # Gives `input` its history and its keys.
            import readline  # noqa: F401

            # Until the line is typed the cursor stands behind the prompt.
            self._is_open = True
            typed = input(prompt)
            self._is_open = False
            return typed
        print(prompt, end="", file=self._err, flush=True)
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.rstrip("\n")

    def abandon(self) -> None:
        """Write nothing more to `out`: its reader has left. Python would try once more at its end."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())

    def _write(self, text: str, *, is_step: bool) -> None:
        text = safe(text)
        if not text:
            return
        if self._is_open and is_step != self._was_step:
            self._out.write("\n")
        self._out.write(f"{DIM}{text}{PLAIN}" if is_step and self._is_dimming else text)
        self._out.flush()
        self._is_open, self._was_step = not text.endswith("\n"), is_step


def safe(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return CONTROL.sub("", text)


def one_line(text: str) -> str:
    """The text in one line, without control characters."""
    return safe(" ".join(text.split()))
