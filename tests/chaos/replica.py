"""One process and its three links: to its clients, to the backend and to the database.

It is a gateway, or a backend of the embedded agent, which needs no link to another backend.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.postgres import role_of
from tests.chaos.tcp_fault_proxy import TcpFaultProxy
from tests.support.fakes.tcp_proxy import Target
from tests.support.ports import hold_port

START_SECONDS: Final = 120.0
PROBE_SECONDS: Final = 0.5


class Replica:
    """`clients`, `backend` and `database` are the links; their faults do not need the process."""

    def __init__(
        self, number: int, folder: Path, backends: Sequence[Target], database: Target, command: str = "serve"
    ) -> None:
        self.number = number
        self._command = command
        self._held = hold_port()
        self._port: int = self._held.getsockname()[1]
        self.clients = TcpFaultProxy(("127.0.0.1", self._port))
        self.backend = TcpFaultProxy(*backends)
        self.database = TcpFaultProxy(database)
        self.log = folder / f"{command}-{number}.log"
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> Target:
        """Where it listens, past its link."""
        return ("127.0.0.1", self._port)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.clients.port}"

    @property
    def running(self) -> bool:
        """Whether there is a process; a frozen one counts."""
        return self._process is not None and self._process.returncode is None

    async def open(self) -> None:
        """Put up the links; the process is started by `start`."""
        for link in (self.clients, self.backend, self.database):
            await link.start()

    async def close(self) -> None:
        """Take everything down."""
        await self.kill()
        for link in (self.clients, self.backend, self.database):
            await link.close()
        self._held.close()

    async def start(self, settings: dict[str, str]) -> None:
        """Start the process; does not wait until it is ready."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_GATEWAY_")}
        own = {
            "BACKEND_URL": f"http://127.0.0.1:{self.backend.port}",
            "DATABASE_URL": settings["DATABASE_URL"].format(
                role=role_of(self.number), port=self.database.port
            ),
            "PORT": str(self._port),
        }
        environ |= {f"AGENT_GATEWAY_{name}": value for name, value in {**settings, **own}.items()}
        with self.log.open("ab") as log:
            log.write(f"--- started at {time.time():.3f}\n".encode())
            log.flush()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent_gateway", self._command, "--port", str(self._port)),
                env=environ,
                # Away from a developer's .env.
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Until /readyz is 200, asked directly; TimeoutError names the process."""
        give_up = time.monotonic() + seconds
        while await self._probe() != 200:
            if time.monotonic() > give_up:
                raise TimeoutError(f"process {self.number} was not ready within {seconds} s")
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """kill -9; also works on a frozen process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM: a deploy."""
        self.signal(signal.SIGTERM)

    async def wait_until_gone(self, seconds: float) -> int | None:
        """Exit status of the process; None when it did not go in time."""
        assert self._process is not None
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            return None

    async def ready(self) -> bool:
        """Whether /readyz says so now."""
        return await self._probe() == 200

    async def _probe(self) -> int:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    path = b"/readyz" if self._command == "serve" else b"/openapi.json"
                    writer.write(b"GET %b HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n" % path)
                    line = await reader.readline()
                finally:
                    writer.transport.abort()
            return int(line.split(b" ")[1])
        except (OSError, TimeoutError, IndexError, ValueError):
            return 0
