"""Functions that apps of these tests name as tools."""

import asyncio
import sys
import threading

from pydantic_ai import BinaryContent, ModelRetry

from tests.support.fakes.mcp_server import PIXEL

SENT: list[str] = []
"""To whom mails went."""
THREADS: list[str] = []
"""The threads in which `thread` ran."""
WORDS = "words-of-a-function-1337"


def send(to: str, text: str) -> str:
    """Send a mail.

    Args:
        to: The address.
        text: What it says.
    """
    SENT.append(to)
    return f"sent to {to}"


async def count(to: int) -> str:
    """Count from one."""
    await asyncio.sleep(0)
    return " ".join(str(number) for number in range(1, to + 1))


def thread() -> str:
    """Do something in a thread."""
    THREADS.append(threading.current_thread().name)
    return "done"


def broken() -> str:
    """Raise an error."""
    raise ValueError(WORDS)


def picky(number: int) -> str:
    """Refuse some numbers."""
    raise ModelRetry(f"{number} is too small")


async def endless() -> str:
    """Never return."""
    await asyncio.Event().wait()
    return ""


def slow() -> str:
    """Never return, in a thread."""
    threading.Event().wait()
    return ""


def leaving() -> str:
    """End the process."""
    sys.exit(3)


def picture() -> BinaryContent:
    """Make a picture."""
    return BinaryContent(PIXEL, media_type="image/png")


NOT_A_FUNCTION = 3
