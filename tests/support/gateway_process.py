"""`agent-gateway serve` as a process of its own, for what only a process can show: signals, output, death."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil  # pyrefly: ignore[untyped-import]

from tests.support.gateway_server import API_KEY, BOUND, SECRET_KEY, wait_until

START_SECONDS = 60.0
"""How long a process may take to start on a busy machine: it imports for seconds."""
STARTED = re.compile(r"running on (http://(?:[0-9.]+|\[[0-9a-f:]+\]):[0-9]+)")
PRINTED_KEY = re.compile(r"API key[^:]*: (\S+)")


def environment(**settings: Any) -> dict[str, str]:
    """This process's environment with these settings and no others, named without AGENT_GATEWAY_."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_GATEWAY_")}
    return others | {f"AGENT_GATEWAY_{name}": str(value) for name, value in settings.items()}


class GatewayProcess:
    """A running `agent-gateway serve` in a folder of its own; settings are named without AGENT_GATEWAY_.

    It is started in `place`, if that is another folder, with these other variables.
    """

    command = "serve"

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        place: Path | None = None,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._output = folder / f"output-{len(list(folder.glob('output-*')))}"
        given = {"DATA_DIR": folder / "data", "SECRET_KEY": SECRET_KEY, **settings}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent_gateway", self.command, "--port", "0", *arguments],
                cwd=place or folder,
                env={**environment(**given), "PYTHONUNBUFFERED": "1", **(environ or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(lambda: STARTED.search(self.output) or self._process.poll() is not None, START_SECONDS)
            found = STARTED.search(self.output)
            assert found, self.output
        except BaseException:
            self._kill()
            raise
        self.url = found[1]

    def ready(self) -> Self:
        """Wait until it takes turns: with Postgres it may answer its probes before that."""
        with self.client() as client:
            wait_until(lambda: client.get("/readyz").status_code == 200, START_SECONDS)
        return self

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return self._output.read_text()

    @property
    def printed_key(self) -> str | None:
        """The API key it made and printed, if it did."""
        found = PRINTED_KEY.search(self.output)
        return found[1] if found else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def children(self) -> list[psutil.Process]:
        """The processes it has started, and those that they have."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def exited(self, seconds: float = BOUND) -> int:
        """Wait for its end; the exit status."""
        return self._process.wait(seconds)

    @contextmanager
    def client(self, key: str = API_KEY) -> Generator[httpx.Client]:
        """An HTTP client with this key."""
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=BOUND, trust_env=False) as client:
            yield client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(BOUND)


class BackendProcess(GatewayProcess):
    """A running `agent-gateway backend`, in the same way."""

    command = "backend"


class OwnAgentProcess(BackendProcess):
    """The same with an agent of somebody's own, started in `place`. It ends as an operator would end it."""

    def __init__(
        self, agent: str, place: Path, folder: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, "--agent", agent, place=place, environ=environ)

    def __exit__(self, *_: object) -> None:
        try:
            self.send(signal.SIGTERM)
            self.exited()
        finally:
            self._kill()
        assert "Traceback" not in self.output
