"""Connections to MCP servers: one for each run to an address, and programs that runs share.

A program takes a second or two to start, and tens of megabytes. So it stays for the runs that follow, as long
as one comes every now and then. Runs share a program only if all that their apps say about it is the same,
with the values filled in: an app that needs one for each user names the user in its environment.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx2
from fastmcp.client import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from pydantic_ai.mcp import MCPToolset

from agent_gateway.backend.embedded.layers import MCPServer
from agent_gateway.backend.embedded.tools.calls import RETRIES

MAX_PROGRAMS: Final = 32
"""Programs that run at once."""
IDLE_SECONDS: Final = 300.0
"""After this time without a run a program is ended."""
ALIVE_SECONDS: Final = 5.0
"""How long a program that waited may take to show that it is still there."""
STOP_SECONDS: Final = 10.0
"""How long the end of all connections may take: a program that does not end is killed long before."""
INHERITED: Final = ("LANG", "LC_ALL", "TZ", "TMPDIR")
"""What a program has of the gateway's variables, beside PATH, HOME, USER, LOGNAME, SHELL and TERM."""


class TooManyPrograms(Exception):
    """All programs that may run at once are in use."""


class Connection:
    """A connection to one server. A task of its own holds it, so that any task may use it and end it."""

    def __init__(self, server: MCPServer) -> None:
        self.status = 0
        """The HTTP status of the newest response."""
        transport = (
            _address(server, self._heard) if server.command is None else _program(server, server.command)
        )
        # The calls have a timeout of their own (`BoundedToolset`).
        client = Client[Any](transport, init_timeout=server.timeout_seconds, timeout=0, log_handler=_ignore)
        self.toolset = MCPToolset[object](client, tool_error_behavior="failed", max_retries=RETRIES)
        self.users = 0
        self.unused_since = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self._seconds = server.timeout_seconds
        self._ending = asyncio.Event()
        self._open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._hold(), name="MCP connection")

    async def _hold(self) -> None:
        try:
            async with self.toolset:
                self._open.set_result(None)
                await self._ending.wait()
        except Exception as error:  # noqa: BLE001 - it is raised to those who wait
            if not self._open.done():
                self._open.set_exception(error)
                self._open.exception()  # perhaps nobody waits any more
        finally:
            self._open.cancel()

    def _heard(self, status: int) -> None:
        self.status = status

    @property
    def is_open(self) -> bool:
        """Whether it has been opened; it may have broken since."""
        return self._open.done()

    async def opened(self) -> None:
        """Wait until it is open. Raises what the connection raised, and TimeoutError."""
        async with asyncio.timeout(self._seconds):
            await asyncio.shield(self._open)

    async def is_alive(self) -> bool:
        """Whether the server still answers."""
        try:
            async with asyncio.timeout(min(ALIVE_SECONDS, self._seconds)):
                await self.toolset.client.list_tools()
        except Exception:  # noqa: BLE001 - whatever it is, it is no answer
            return False
        return True

    def end(self) -> None:
        """Begin to close it."""
        self._ending.set()
        if not self.is_open:
            self.task.cancel()


class Lease:
    """What a run has of a connection, from its first moment until `release`. Raises TooManyPrograms."""

    def __init__(self, connections: "Connections", server: MCPServer) -> None:
        self._connections = connections
        self._server = server
        self._connection = connections.take(server)

    @property
    def toolset(self) -> MCPToolset[object]:
        """The tools of the server, once it is ready."""
        return self._connection.toolset

    @property
    def status(self) -> int:
        """The HTTP status of the newest response; 0 without one."""
        return self._connection.status

    async def ready(self) -> None:
        """Wait until the server can be used; one that ended meanwhile is started again.

        Raises what the connection raises, TimeoutError and TooManyPrograms.
        """
        if self._connection.is_open and not await self._connection.is_alive():
            self.lost()
            again = self._connections.take(self._server)
            self.release()
            self._connection = again
        try:
            await self._connection.opened()
        except BaseException:
            self.lost()
            raise

    def lost(self) -> None:
        """Runs that begin later get another connection: this one may be broken."""
        self._connections.forget(self._connection)

    def release(self) -> None:
        """The run needs it no longer."""
        self._connections.leave(self._connection)


class Connections:
    """All connections of this process to MCP servers."""

    def __init__(self, *, most: int = MAX_PROGRAMS, idle_seconds: float = IDLE_SECONDS) -> None:
        self._most = most
        self._idle_seconds = idle_seconds
        self._programs: dict[str, Connection] = {}
        """The programs that runs may share, by all that an app says about them."""
        self._all: dict[asyncio.Task[None], Connection] = {}

    def take(self, server: MCPServer) -> Connection:
        """A connection that is open or begins to open. Raises TooManyPrograms."""
        if server.command is None:
            connection = self._begin(server)
        else:
            key = server.model_dump_json(include={"command", "env"})
            found = self._programs.get(key)
            if found is None or found.task.done():
                self._make_room()
                found = self._programs[key] = self._begin(server)
            connection = found
        if connection.timer is not None:
            connection.timer.cancel()
        connection.users += 1
        return connection

    def leave(self, connection: Connection) -> None:
        """One user less. A program stays for a while without any, another connection ends."""
        connection.users -= 1
        if connection.users:
            return
        if connection not in self._programs.values():
            connection.end()
            return
        loop = asyncio.get_running_loop()
        connection.unused_since = loop.time()
        connection.timer = loop.call_later(self._idle_seconds, self.forget, connection)

    def forget(self, connection: Connection) -> None:
        """Give it to no more runs; it ends when the last one has left it."""
        self._programs = {key: one for key, one in self._programs.items() if one is not connection}
        if connection.users == 0:
            connection.end()

    async def aclose(self) -> None:
        """End all connections and programs."""
        self._programs.clear()
        for connection in self._all.values():
            connection.end()
        if self._all:
            await asyncio.wait(list(self._all), timeout=STOP_SECONDS)

    def _begin(self, server: MCPServer) -> Connection:
        connection = Connection(server)
        self._all[connection.task] = connection
        connection.task.add_done_callback(self._all.pop)
        return connection

    def _make_room(self) -> None:
        if len(self._programs) < self._most:
            return
        unused = [program for program in self._programs.values() if program.users == 0]
        if not unused:
            raise TooManyPrograms
        self.forget(min(unused, key=lambda program: program.unused_since))


def _program(server: MCPServer, command: Sequence[str]) -> StdioTransport:
    inherited = {name: value for name in INHERITED if (value := os.environ.get(name)) is not None}
    return StdioTransport(
        command[0],
        list(command[1:]),
        env=inherited | server.env,
        keep_alive=False,
        log_file=Path(os.devnull),  # what it says may be anything, and as much as it likes
    )


def _address(server: MCPServer, on_response: Callable[[int], None]) -> StreamableHttpTransport:
    async def hear(response: httpx2.Response) -> None:
        if response.request.method == "POST":  # a server may have no stream of its own to GET
            on_response(response.status_code)

    def client(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
        **_: object,
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=headers,
            timeout=timeout or httpx2.Timeout(30.0, read=None),
            auth=auth,
            verify=_tls(),
            follow_redirects=False,  # the headers are for this address
            event_hooks={"response": [hear]},
        )

    return StreamableHttpTransport(server.url or "", headers=server.headers, httpx_client_factory=client)


@cache
def _tls() -> ssl.SSLContext:
    """Made once: it reads all certificates of the machine."""
    return httpx2.create_ssl_context()


async def _ignore(_: object) -> None:
    """What a server logs may be anything, and does not belong in the gateway's log."""
