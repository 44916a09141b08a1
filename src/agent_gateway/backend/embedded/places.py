"""Says where an error arose in somebody's agent: its type and `file:line`, never its text.

The text of an error may hold credentials or a user's words.
"""

import sysconfig
import traceback
from pathlib import Path
from typing import Final

from agent_gateway.backend.embedded.runs import RunFailed

_LIBRARIES: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_OURS: Final = str(Path(__file__).resolve().parent)


def place_of(error: BaseException) -> str:
    """`file:line` of the last step of this error that is in no library; of its last step if all are."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")
    ]
    own = [frame for frame in frames if not _is_foreign(frame.filename)]
    last = next(iter(own[-1:] or frames[-1:]), None)
    return "an unknown place" if last is None else place(last.filename, last.lineno)


def place(filename: str, line: int | None) -> str:
    """`file:line`, relative to the current folder if the file is in it."""
    path = Path(filename)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{line or 0}"


def broken(error: BaseException) -> RunFailed:
    """The failed run for an exception that an agent did not mean to raise."""
    cause = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    kind, where = type(cause).__name__, place_of(cause if cause.__traceback__ else error)
    return RunFailed(f"the agent failed ({kind})", None, f"{kind} at {where}")


def _is_foreign(filename: str) -> bool:
    resolved = str(Path(filename).resolve())
    return resolved.startswith((*_LIBRARIES, _OURS))
