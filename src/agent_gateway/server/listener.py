"""Accepts connections: several in each round of the loop, so that they do not wait for a busy one.

uvloop accepts one connection per round, and closes new connections silently when no descriptor is left. So
this event loop has a listener of its own.
"""

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable, Collection
from typing import Any, Final

import uvloop
from typing_extensions import override

from agent_gateway.server.connection import Connection

ACCEPT_AT_ONCE: Final = 8
"""In one round of the loop. The next round begins with the work of these: meanwhile another worker that
listens on the same socket takes its share of a crowd."""
PAUSE_SECONDS: Final = 0.5
"""How long the listener pauses when there are too many connections."""
COMPLAINT_SECONDS: Final = 60.0
"""The shortest time between two log lines about that."""
FEW_FILES: Final = 4096
"""With fewer open files than this, a warning is logged."""

_NOTHING_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

logger = logging.getLogger(__name__)


def raise_file_limit() -> int:
    """Raise this process's limit of open files to its maximum, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            logger.debug("the limit of open files stays at %d", soft)
    return soft


class Loop(uvloop.Loop):
    """uvloop's event loop, whose servers accept as `Listener` does."""

    @override
    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Connection],
        host: str | None = None,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        backlog: int = 2048,
        **_: Any,
    ) -> "Listener":
        if sock is None:
            host = host or "127.0.0.1"
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.create_server((host, port), family=family)
        return Listener(self, protocol_factory, sock, backlog)


class Listener:
    """Accepts on one bound socket, from now until it is closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Connection],
        listening: socket.socket,
        backlog: int,
    ) -> None:
        self.sockets = (listening,)
        self._loop = loop
        self._factory = factory
        self._socket = listening
        self._connecting: set[asyncio.Task[None]] = set()
        self._complained = -COMPLAINT_SECONDS
        self._closed = False
        files = raise_file_limit()
        # Each reader needs a descriptor here, and its turn another one for the backend.
        self._most = files // 2
        self._open: Collection[object] = ()
        """The connections of this server."""
        if files < FEW_FILES:
            logger.warning("only %d open files are allowed (ulimit -n): %d connections", files, self._most)
        listening.setblocking(False)
        listening.listen(backlog)
        loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept nothing more. Existing connections stay."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def wait_closed(self) -> None:
        """Do nothing; callers expect a server of asyncio, which has this method."""

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            if len(self._open) + len(self._connecting) >= self._most:
                self._complain(f"{self._most} are open, half of the allowed open files")
                return
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NOTHING_LEFT:
                    raise
                self._complain(error.strerror or str(error))
                return
            task = self._loop.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await self._loop.connect_accepted_socket(self._factory, accepted)
            self._open = connection.state.connections
            if self._closed:
                # Accepted before the server stopped, but not yet known to it at that moment.
                connection.shutdown()
        except OSError:
            # The client has left already.
            accepted.close()

    def _complain(self, reason: str) -> None:
        """Pause until clients leave. Until then new connections wait, and are not refused."""
        self._loop.remove_reader(self._socket)
        self._loop.call_later(PAUSE_SECONDS, self._resume)
        if self._loop.time() - self._complained >= COMPLAINT_SECONDS:
            self._complained = self._loop.time()
            logger.error("new connections have to wait: %s", reason)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket, self._accept)
