"""The tools of MCP servers. Importing this module takes seconds: only a run with such tools does."""

import asyncio
import logging
from collections.abc import Iterable, Mapping

from pydantic_ai.toolsets import AbstractToolset

from agent_gateway.backend.embedded.failures import TOOLS_AWAY, TOOLS_MISTAKEN
from agent_gateway.backend.embedded.layers import MCPServer, nearest
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools.approval import needing_approval
from agent_gateway.backend.embedded.tools.calls import BoundedToolset
from agent_gateway.backend.embedded.tools.connections import Connections, Lease, TooManyPrograms

# What these say quotes what servers send; their tracebacks too.
for _name in ("mcp", "fastmcp"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
    logging.getLogger(_name).propagate = False


class ServerTools:
    """The tools of one MCP server in one run. `ready` gives them, `release` ends their use."""

    def __init__(self, name: str, server: MCPServer, connections: Connections) -> None:
        self.name = name
        self._server = server
        try:
            self._lease = Lease(connections, server)
        except TooManyPrograms:
            raise self._failed("too many programs run already") from None

    async def ready(self) -> tuple[AbstractToolset[object], list[str]]:
        """The toolset, and the names of its tools; raises RunFailed."""
        server, lease = self._server, self._lease
        try:
            await lease.ready()
            async with asyncio.timeout(server.timeout_seconds):
                names = [tool.name for tool in await lease.toolset.list_tools()]
        except TimeoutError:
            raise self._failed(f"it was not ready within {server.timeout_seconds:g} seconds") from None
        except TooManyPrograms:
            raise self._failed("too many programs run already") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the server cannot be used
            raise self._failed(_why(error, lease.status)) from None
        self._require(names, server.allow or [], "allow")
        self._require(names, server.needs_approval, "needs_approval")
        allowed = names if server.allow is None else server.allow
        toolset: AbstractToolset[object] = BoundedToolset(
            lease.toolset, f"the MCP server {self.name!r}", server.timeout_seconds, lease.lost
        ).filtered(lambda _, tool: tool.name in allowed)
        toolset = needing_approval(toolset, server.needs_approval)
        if server.prefix is None:
            return toolset, list(allowed)
        return toolset.prefixed(server.prefix), [f"{server.prefix}_{name}" for name in allowed]

    def release(self) -> None:
        """The run needs them no longer."""
        self._lease.release()

    def _require(self, names: list[str], wanted: Iterable[str] | bool, key: str) -> None:
        for name in wanted if not isinstance(wanted, bool) else ():
            if name not in names:
                # A misspelt name must not let a tool run without an approval.
                said = f"the MCP server {self.name!r} has no tool {name!r} ({key}){nearest(name, names)}"
                raise RunFailed(said, TOOLS_MISTAKEN)

    def _failed(self, why: str) -> RunFailed:
        return RunFailed(f"the MCP server {self.name!r} cannot be used: {why}", TOOLS_AWAY)


async def tools_of(servers: Mapping[str, MCPServer]) -> dict[str, list[str]]:
    """The names of the tools of each server. Raises RunFailed for the first that cannot be used."""
    connections = Connections()
    found: dict[str, list[str]] = {}
    try:
        for name, server in servers.items():
            tools = ServerTools(name, server, connections)
            try:
                _, found[name] = await tools.ready()
            finally:
                tools.release()
    finally:
        await connections.aclose()
    return found


def _why(error: BaseException, status: int) -> str:
    """Words without anything that the server said."""
    if status >= 300:
        return f"it answered {status}"
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = error.__cause__ or error.__context__
    kind = type(cause if isinstance(error, RuntimeError) and cause is not None else error).__name__
    return f"the connection failed ({kind})"
