"""`agent-gateway backend` as a process of its own, with an agent of somebody's own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.support.gateway_process import START_SECONDS, STARTED, environment
from tests.support.gateway_server import BOUND, wait_until


class OwnAgentProcess:
    """A running `agent-gateway backend --agent …`, started in `folder`; it writes to a file in `output`."""

    def __init__(
        self, agent: str, folder: Path, output: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._output = output / "backend-output"
        command = [sys.executable, "-m", "agent_gateway", "backend", "--port", "0", "--agent", agent]
        given = {**environment(), "PYTHONUNBUFFERED": "1", "AGENT_GATEWAY_DATA_DIR": str(output / "backend")}
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**given, **(environ or {})},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: STARTED.search(self.output) or self._process.poll() is not None, START_SECONDS)
            found = STARTED.search(self.output)
            assert found, self.output
        except BaseException:
            self._end()
            raise
        self.url = found[1]

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self._output.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        assert "Traceback" not in self.output

    def _end(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(BOUND)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(BOUND)
