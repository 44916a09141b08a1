"""The tools of a run, from what its app says about them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal

from pydantic_ai import Tool
from pydantic_ai.exceptions import UserError
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset

from agent_gateway.backend.embedded.failures import TOOLS_MISTAKEN
from agent_gateway.backend.embedded.layers import (
    FunctionTool,
    MCPServer,
    OpenAPITools,
    ToolsConfig,
)
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools import human
from agent_gateway.backend.embedded.tools.approval import needing_approval
from agent_gateway.backend.embedded.tools.calls import RETRIES, BoundedToolset
from agent_gateway.backend.embedded.tools.check import HUMAN, INSTALL
from agent_gateway.backend.embedded.tools.functions import FunctionMissing, load_function
from agent_gateway.backend.embedded.tools.http_calls import HttpClient, http_client, operation_tool
from agent_gateway.backend.embedded.tools.openapi import DocumentError, Operation, read_api
from agent_gateway.backend.embedded.tools.threads import Threads

if TYPE_CHECKING:
    from agent_gateway.backend.embedded.tools.connections import Connections
    from agent_gateway.backend.embedded.tools.mcp import ServerTools

_MCP: Final = "agent_gateway.backend.embedded.tools.mcp"
Named = tuple[AbstractToolset[object], list[str]]
"""A toolset, and the names of its tools."""


class Tools:
    """The tools of this process: connections that runs share.

    `runs_code`: whether compositions may name programs, functions and files of this machine.
    """

    def __init__(self, *, runs_code: bool = True) -> None:
        self._runs_code = runs_code
        self._client: HttpClient | None = None
        self._connections: Connections | None = None
        self._threads = Threads()

    @asynccontextmanager
    async def of(
        self, config: ToolsConfig, *, asks_human: bool
    ) -> AsyncGenerator[list[AbstractToolset[object]]]:
        """The toolsets of a run, while it runs. Raises RunFailed when one of them cannot be used."""
        if not self._runs_code and (place := config.local):
            raise RunFailed(
                f"{place}: only a backend with AGENT_GATEWAY_BACKEND_TOKEN runs programs and functions",
                TOOLS_MISTAKEN,
            )
        servers: list[ServerTools] = []
        try:
            if config.mcp:
                await self._start(config.mcp, servers)
            named = [await self._function(one) for one in config.functions]
            named += [await self._api(name, api) for name, api in config.openapi.items()]
            named += [await server.ready() for server in servers]
            if asks_human:
                named.append((human.TOOLSET, [HUMAN]))
            _require_different(named)
            yield [toolset for toolset, _ in named]
        finally:
            for server in servers:
                server.release()

    async def _start(self, configs: Mapping[str, MCPServer], started: "list[ServerTools]") -> None:
        """Begin to start all MCP servers of a run at once."""
        try:
            # Its libraries take seconds to import.
            await asyncio.to_thread(import_module, _MCP)
        except ImportError:
            raise RunFailed(f"MCP servers need an extra: {INSTALL}", TOOLS_MISTAKEN) from None
        from agent_gateway.backend.embedded.tools.connections import Connections
        from agent_gateway.backend.embedded.tools.mcp import ServerTools

        if self._connections is None:
            self._connections = Connections()
        for name, config in configs.items():
            started.append(ServerTools(name, config, self._connections))

    async def _function(self, config: FunctionTool) -> Named:
        try:
            # Importing a module may take long.
            function = await asyncio.to_thread(load_function, config.function)
            tool = Tool[object](self._threads.asynchronous(function), max_retries=RETRIES)
        except FunctionMissing as error:
            raise RunFailed(f"the function {error}", TOOLS_MISTAKEN) from None
        except (UserError, TypeError, NameError, AttributeError):
            said = f"the function {config.function!r}: no schema can be made of its type hints"
            raise RunFailed(said, TOOLS_MISTAKEN) from None
        toolset = FunctionToolset[object]([tool])
        bounded = BoundedToolset(toolset, f"the function {config.function!r}", config.timeout_seconds)
        return needing_approval(bounded, True if config.needs_approval else []), [tool.name]

    async def _api(self, name: str, config: OpenAPITools) -> Named:
        try:
            url, found = await asyncio.to_thread(read_api, config)
        except DocumentError as error:
            raise RunFailed(f"the HTTP API {name!r}: {error}", TOOLS_MISTAKEN) from None
        client = self._client = self._client or http_client()
        tools = [operation_tool(client, url, config.headers, one) for one in found]
        toolset = FunctionToolset[object](tools, max_retries=RETRIES)
        bounded = BoundedToolset(toolset, f"the HTTP API {name!r}", config.timeout_seconds)
        return needing_approval(bounded, _approved(config, found)), [one.tool for one in found]

    async def aclose(self) -> None:
        """End all programs and connections."""
        if self._client is not None:
            await self._client.aclose()
        if self._connections is not None:
            await self._connections.aclose()


def _approved(config: OpenAPITools, found: Sequence[Operation]) -> list[str] | Literal[True]:
    """The names of the tools that need an approval."""
    if config.needs_approval is True:
        return True
    return [one.tool for one in found if one.id in config.needs_approval]


def _require_different(named: Sequence[Named]) -> None:
    """Raises RunFailed when two tools have one name, or one has that of the tool that asks humans."""
    taken = {HUMAN} if named and named[-1][0] is not human.TOOLSET else set[str]()
    for _, names in named:
        for name in names:
            if name in taken:
                said = f"two tools have the name {name!r}: give one of their servers a 'prefix'"
                raise RunFailed(said, TOOLS_MISTAKEN)
            taken.add(name)
