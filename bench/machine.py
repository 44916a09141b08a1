"""The machine: which cores which process gets, what it is, and what a process has used of it."""

import os
import platform
import re
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil  # pyrefly: ignore[untyped-import]

PACKAGES: Final = ("uvicorn", "uvloop", "fastapi", "httptools", "httpx", "asyncpg", "aiosqlite")
"""Those that a token or a turn goes through, in one of the gateways."""


@dataclass(frozen=True)
class Cores:
    """Which cores each role may use. The server never shares its core with what measures it."""

    server: frozenset[int]
    second_server: frozenset[int]
    """For a server with two workers; with fewer than five cores, others have it as well."""
    backend: frozenset[int]
    client: frozenset[int]
    database: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The first core is the server's; the others are shared by as many roles as they must be."""
        cores = sorted(os.sched_getaffinity(0))
        server, others = cores[0], cores[1:] or cores
        return cls(
            server=frozenset({server}),
            second_server=frozenset({others[-1]}),
            backend=frozenset({others[0]}),
            client=frozenset({others[1 % len(others)]}),
            database=frozenset(others[2:-1] or others[2:] or others),
        )

    @classmethod
    def unpinned(cls) -> "Cores":
        """Every role may use every core: faster, and of no use to measure."""
        cores = frozenset(os.sched_getaffinity(0))
        return cls(cores, cores, cores, cores, cores)


@contextmanager
def pinned(cores: frozenset[int]) -> Generator[None]:
    """What is started inside runs on these cores only: a process inherits the cores of its parent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[psutil.Process]:
    """A process and its children, and theirs."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its children have used so far."""
    times = [process.cpu_times() for process in family(pid)]
    return float(sum(each.user + each.system for each in times))


def cpu_seconds_of_children(pid: int) -> list[float]:
    """The same of each child alone, the oldest first."""
    return [cpu_seconds(child.pid) for child in psutil.Process(pid).children()]


def resident_bytes(pid: int) -> int:
    """Memory of a process and its children."""
    return sum(int(process.memory_info().rss) for process in family(pid))


def description() -> dict[str, str]:
    """What a reader must know of the machine, and the versions of what was measured."""
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _first_line("git", "rev-parse", "--short", "HEAD"),
        "processor": found[1] if found else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "nginx": _first_line("nginx", "-v").rpartition("/")[2],
        "gcc": _first_line("gcc", "--version").rpartition(" ")[2],
        **{name: version(name) for name in PACKAGES},
    }


def _first_line(*command: str) -> str:
    """Of the output of a command; empty where it is missing or fails."""
    path = os.environ["PATH"] + ":/usr/sbin"  # where Debian has nginx
    try:
        done = subprocess.run(
            command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent, env={**os.environ, "PATH": path},
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.partition("\n")[0].strip()
