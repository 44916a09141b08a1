"""What commands print and write: counts, and files that only their owner can read."""

import os
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from agent_gateway.cli.values import print_table
from agent_gateway.errors import ConfigError

PRIVATE: Final = 0o600


def print_counts(counts: Counter[str]) -> None:
    """A table of kinds and their numbers; kinds of which there are none are left out."""
    rows: list[tuple[str, ...]] = [
        (kind.replace("_", " "), str(count)) for kind, count in counts.items() if count
    ]
    if rows:
        print_table(("KIND", "COUNT"), rows)
    else:
        print("nothing")


@contextmanager
def private_file(path: Path) -> Generator[BinaryIO]:
    """A new file with mode 0600, which gets its name when it is complete; it leaves nothing when it fails.

    Raises ConfigError when there is such a file already, or when it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise ConfigError(f"{path} exists: name another file")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or type(error).__name__}") from None
