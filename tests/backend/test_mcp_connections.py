"""Programs of MCP servers that runs share: how many there are, and when they end."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import psutil  # pyrefly: ignore[untyped-import]
import pytest

from agent_gateway.backend.embedded.layers import MCPServer
from agent_gateway.backend.embedded.tools.connections import Connections, Lease, TooManyPrograms
from tests.support.fakes.mcp_server import COMMAND
from tests.support.gateway_server import wait_until

pytestmark = pytest.mark.anyio

LIMIT = 60.0
PROGRAM = [*COMMAND, "--named", "connections"]
"""Other tests of this process may have programs of their own."""


def server(name: str) -> MCPServer:
    """A program that is another one for each name."""
    return MCPServer(command=PROGRAM, env={"NAME": name})


def programs(command: Sequence[str] = PROGRAM) -> int:
    return len([child for child in psutil.Process().children() if child.cmdline() == list(command)])


@asynccontextmanager
async def connections(most: int = 8, idle_seconds: float = 60.0) -> AsyncGenerator[Connections]:
    made = Connections(most=most, idle_seconds=idle_seconds)
    async with asyncio.timeout(LIMIT):
        yield made
        await made.aclose()
    assert programs() == 0


async def test_runs_that_begin_at_once_start_one_program_which_stays() -> None:
    async with connections() as made:
        leases = [Lease(made, server("a")) for _ in range(3)]
        await asyncio.gather(*(lease.ready() for lease in leases))
        for lease in leases:
            lease.release()
        assert programs() == 1
        again = Lease(made, server("a"))
        await again.ready()
        assert programs() == 1
        again.release()


async def test_a_program_without_runs_ends_after_a_while() -> None:
    async with connections(idle_seconds=0.0) as made:
        lease = Lease(made, server("a"))
        await lease.ready()
        task = lease._connection.task
        lease.release()
        await task
        assert programs() == 0


async def test_the_program_that_was_unused_longest_makes_room() -> None:
    async with connections(most=2) as made:
        first, second = Lease(made, server("a")), Lease(made, server("b"))
        await asyncio.gather(first.ready(), second.ready())
        with pytest.raises(TooManyPrograms):
            Lease(made, server("c"))
        gone = first._connection.task
        first.release()
        second.release()
        third = Lease(made, server("c"))
        await third.ready()
        await gone
        assert programs() == 2
        third.release()


async def test_a_program_that_was_killed_is_replaced_for_the_next_run() -> None:
    async with connections() as made:
        lease = Lease(made, server("a"))
        await lease.ready()
        lease.release()
        [child] = [child for child in psutil.Process().children() if child.cmdline() == PROGRAM]
        child.kill()
        again = Lease(made, server("a"))
        await again.ready()
        assert await again.toolset.list_tools()
        assert programs() == 1
        again.release()


async def test_a_program_that_nobody_waits_for_any_more_is_ended() -> None:
    async with connections() as made:
        command = [*COMMAND, "--mute", "connections"]
        lease = Lease(made, MCPServer(command=command))
        waiting, task = asyncio.create_task(lease.ready()), lease._connection.task
        await asyncio.to_thread(wait_until, lambda: programs(command))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        lease.release()
        await asyncio.wait([task])
        assert programs(command) == 0
