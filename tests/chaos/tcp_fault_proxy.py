"""A TCP link that misbehaves on request: it resets, tears, refuses, stalls and throttles.

It lives in the event loop that starts it, listens on one port of 127.0.0.1 for all its life, and
passes bytes on to a TCP port or a Unix socket. Of several targets each connection gets the next one that is
there, as a load balancer gives it.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final

from tests.support.fakes.tcp_proxy import Target
from tests.support.ports import hold_port

_SLICES_PER_SECOND: Final = 20
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
"""With this, closing a socket sends RST instead of FIN."""


class TcpFaultProxy:
    """`start` it, misbehave, `close` it. `heal` ends every fault that lasts."""

    def __init__(self, *targets: Target) -> None:
        self._targets = list(targets)
        self._held = hold_port()
        self.port: int = self._held.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.bytes_per_second: float | None = None
        """Speed of each direction of each connection while throttled."""

    async def start(self) -> None:
        """Listen; nothing happens when it does already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Break everything and listen no more."""
        self.refuse()
        self.heal_flow()
        self.reset()
        await asyncio.gather(*(link.task for link in self._links), return_exceptions=True)
        self._held.close()

    def refuse(self) -> None:
        """New connections are refused; open ones continue."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def reset(self) -> None:
        """Every open connection ends with RST, at once."""
        for link in self._links:
            link.reset()

    def tear(self) -> None:
        """Every open connection ends in the middle of the next bytes that the server sends."""
        for link in self._links:
            link.torn = True

    def stall(self) -> None:
        """No byte goes either way until healed; connections stay open and are accepted."""
        self._flowing.clear()

    def throttle(self, bytes_per_second: float) -> None:
        """Slow every connection down until healed."""
        self.bytes_per_second = bytes_per_second

    def heal_flow(self) -> None:
        """End a stall or a throttle."""
        self.bytes_per_second = None
        self._flowing.set()

    async def heal(self) -> None:
        """Be a good link again."""
        self.heal_flow()
        await self.start()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task, writer)
        self._links.add(link)
        try:
            there = await self._connect()
            link.writers.append(there[1])
            await asyncio.gather(
                self._pump(link, reader, there[1], tearable=False),
                self._pump(link, there[0], writer, tearable=True),
            )
            for side in link.writers:
                side.close()
                await side.wait_closed()
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)
            link.reset()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for last in range(len(self._targets) - 1, -1, -1):
            target = self._targets.pop(0)
            self._targets.append(target)
            try:
                if isinstance(target, str):
                    return await asyncio.open_unix_connection(target)
                return await asyncio.open_connection(*target)
            except OSError:
                if not last:
                    raise
        raise AssertionError("there is no target")

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tearable: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if tearable and link.torn:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    link.reset()
                    return
                await self._send(writer, data)
            await self._flowing.wait()
            writer.write_eof()
        except OSError:
            # An abrupt end is passed on as one.
            link.reset()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            size = len(data)
            if self.bytes_per_second is not None:
                size = max(1, int(self.bytes_per_second / _SLICES_PER_SECOND))
                await asyncio.sleep(1 / _SLICES_PER_SECOND)
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]


class _Link:
    """One connection through the proxy: the client's side, and the server's once it is there."""

    def __init__(self, task: "asyncio.Task[None]", client: asyncio.StreamWriter) -> None:
        self.task = task
        self.writers = [client]
        self.torn = False

    def reset(self) -> None:
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX and not writer.transport.is_closing():
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            writer.transport.abort()
