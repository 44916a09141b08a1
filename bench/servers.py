"""Servers as processes of their own: started on their cores, measured, stopped."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from bench.machine import cpu_seconds, cpu_seconds_of_children, family, pinned, resident_bytes

START_SECONDS = 90.0
STOP_SECONDS = 60.0


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_of(url: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again; whether it came true in this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """The same. Raises RuntimeError after so long."""
    if not comes_true(condition, seconds):
        raise RuntimeError(f"not within {seconds:g} s: {what}")


class Server:
    """A server process, begun at once; a context manager, which waits until it is ready.

    It is ready when it answers a GET of the path `ready`. Its output goes to a file in `folder`.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        port: int,
        *,
        cores: frozenset[int],
        folder: Path,
        ready: str = "/",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._path = ready
        self.output = folder / f"{name}-{port}.log"
        others = {key: text for key, text in os.environ.items() if not key.startswith("AGENT_GATEWAY_")}
        with self.output.open("wb") as output, pinned(cores):
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**others, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _answers(self) -> bool:
        self.require_running()
        return status_of(self.url + self._path) not in (0, 503)

    def require_running(self) -> None:
        """Raise RuntimeError when it has ended: it would look as if it cost nothing."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} has ended:\n{self.output.read_text()[-2000:]}")

    def cpu(self) -> float:
        """CPU seconds of the process and its children so far."""
        return cpu_seconds(self._process.pid)

    def cpu_of_workers(self) -> list[float]:
        """CPU seconds of each child of the process so far."""
        return cpu_seconds_of_children(self._process.pid)

    def memory(self) -> int:
        """Resident bytes of the process and its children now."""
        return resident_bytes(self._process.pid)

    def kill(self) -> None:
        """End it and its children at once, as a crash does."""
        if self._process.poll() is None:
            for process in family(self._process.pid):
                process.kill()
        self._process.wait(STOP_SECONDS)

    def ready(self) -> Self:
        """Wait until it serves. Raises RuntimeError when it ends, or takes too long."""
        wait_until(self._answers, START_SECONDS, f"{self.name} is ready")
        return self

    def __enter__(self) -> Self:
        try:
            return self.ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        # Nobody needs its data, or waits for a drain.
        self.kill()
