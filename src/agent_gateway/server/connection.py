"""One connection: its requests one after the other, each answered before the next one is parsed.

uvicorn's own protocols parse all bytes that arrive. Here a request that arrives too early waits in the
buffer, and nothing more is read. So MAX_HEAD, HIGH_WATER and the size of one read bound the cost of a
connection. A client that sends or reads too slowly is cut off.
"""

import asyncio
import json
import logging
from array import array
from fcntl import ioctl
from termios import TIOCOUTQ

from typing_extensions import override
from uvicorn.config import Config
from uvicorn.server import ServerState

from agent_gateway import metrics
from agent_gateway.crowd import Ticker
from agent_gateway.limits import ServerLimits
from agent_gateway.server.body import Body, ChunkedBody, SizedBody
from agent_gateway.server.exchange import HIGH_WATER, PUSH, STATUS_LINES, Exchange
from agent_gateway.server.head import CHUNKED, END, MAX_HEAD, Head, Refused, too_large, too_slow

logger = logging.getLogger(__name__)


class Pace:
    """Whether work makes progress: at least `stall_bytes` in `stall_seconds`, or all that there was to do."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._since: float | None = None
        self._done = 0

    def rest(self) -> None:
        """Nothing is to be done now."""
        self._since = None

    def is_stalled(self, now: float, done: int) -> bool:
        """Whether the work stalls; `done` is the total of bytes so far."""
        if self._since is None or done - self._done >= self._limits.stall_bytes:
            self._since, self._done = now, done
        return now - self._since >= self._limits.stall_seconds


class Connection(asyncio.Protocol):
    """Takes the place of uvicorn's own HTTP protocols."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ServerLimits,
        looks: Ticker,
    ) -> None:
        if not config.loaded:
            config.load()
        self.full = False
        """The client reads more slowly than the response is written."""
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # comes with the connection
        self.state = server_state
        self._config = config
        self._limits = limits
        self._looks = looks
        """Calls `_look` of all connections of the server."""
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._writable: asyncio.Event | None = None
        """Made for those who wait until the client has read: an event takes 800 bytes."""
        self._buffer = bytearray()
        """Bytes that were read and belong to no request yet."""
        self._scanned = 0
        self._exchange: Exchange | None = None
        self._body: Body | None = None
        """The body of the exchange, until its end was read."""
        self._paused = False
        self._lingering = False
        self._received = 0
        self._written = 0
        self._lost = False
        self._deadline: float | None = None
        """When the head must be complete; None while a request is answered."""
        self._reading, self._writing = Pace(limits), Pace(limits)
        self._looked = self._loop.time()

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of every response."""
        return self.state.default_headers

    @property
    def can_stay(self) -> bool:
        """Whether the end of the current request was read, or is almost certain to come.

        A client that waits for 100 Continue may never send its body, and the end of chunks is not known.
        """
        body = self._body
        if body is None:
            return True
        awaits = self._exchange is not None and self._exchange.client_waits
        return isinstance(body, SizedBody) and body.left <= HIGH_WATER and not awaits

    # -- what the event loop calls --------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.state.connections.add(self)  # type: ignore[arg-type]
        self._server, self._client = (_address(transport, name) for name in ("sockname", "peername"))
        self._deadline = self._loop.time() + self._limits.head_seconds
        self._looks.join(self._look)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._lingering:
            if self._received > self._limits.linger_bytes:
                self.cut()
            return
        if not self._buffer and self._exchange is None:
            self._deadline = min(self._deadline or 0, self._loop.time() + self._limits.head_seconds)
        self._buffer += data
        self._process_buffer()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._looks.leave(self._look)
        self.state.connections.discard(self)  # type: ignore[arg-type]
        self._buffer.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.leave()
        self.resume_writing()

    @override
    def pause_writing(self) -> None:
        self.full = True

    @override
    def resume_writing(self) -> None:
        self.full = False
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()

    # -- what uvicorn calls -----------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server stops: close now, or after the current response."""
        if self._exchange is None:
            self.transport.close()
        else:
            self._exchange.close_after()

    # -- what the exchange calls ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self._written += len(data)
        self.transport.write(data)

    async def writable(self) -> None:
        """Wait until the client has read or has left."""
        while self.full:
            self._writable = self._writable or asyncio.Event()
            await self._writable.wait()

    def read_on(self) -> None:
        """The application takes the data, so more may be read."""
        if self._paused and len(self._buffer) <= HIGH_WATER:
            self._paused = False
            self.transport.resume_reading()

    def cut(self) -> None:
        """Break the connection. Unsent bytes are lost."""
        self.transport.abort()

    def response_complete(self, *, keep_alive: bool) -> None:
        """The whole response was written."""
        self.state.total_requests += 1
        if self._lost or self.transport.is_closing():
            return
        if keep_alive:
            self._exchange = None
            seconds = (
                self._limits.head_seconds if self._buffer or self._body else self._config.timeout_keep_alive
            )
            self._deadline = self._loop.time() + seconds
            # Called later, so that the task that sends the response ends first.
            self._loop.call_soon(self._process_buffer)
        elif self._body is not None or self._buffer or self._paused:
            self._linger()
        else:
            self.transport.close()

    # -- requests ---------------------------------------------------------------------------------------

    def _process_buffer(self) -> None:
        """Process the buffer as far as the order of requests allows."""
        if self._lost or self._lingering or self.transport.is_closing():
            return
        try:
            if self._body is not None and self._exchange is None:
                self._read_body(self._body)
            if self._body is None and self._exchange is None:
                self._begin()
            if self._body is not None and self._exchange is not None:
                self._read_body(self._body)
        except Refused as refused:
            self._refuse(refused)
            return
        waiting = 0 if self._exchange is None else max(len(self._buffer), len(self._exchange.body))
        if waiting > HIGH_WATER:
            self._pause()
        else:
            self.read_on()

    def _begin(self) -> None:
        """Begin the next exchange if its head is complete. Raises Refused."""
        if self._buffer[:1] in (b"\r", b"\n") and not self._scanned:
            # Empty lines before a request line are ignored.
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]
        found = END.search(self._buffer, max(0, self._scanned - 2), MAX_HEAD)
        if found is None:
            self._scanned = len(self._buffer)
            if self._scanned >= MAX_HEAD:
                raise too_large()
            return
        head = Head(bytes(self._buffer[: found.end()]))
        del self._buffer[: found.end()]
        self._scanned = 0
        self._deadline = None
        if head.body_size:
            self._body = ChunkedBody() if head.body_size == CHUNKED else SizedBody(head.body_size)
        exchange = self._exchange = Exchange(self, head)
        if self._body is None:
            exchange.add(b"", complete=True)
        self._reading.rest()
        task = self._loop.create_task(
            self._exchange.run(self._config.loaded_app, self._scope(head, self._exchange))
        )
        self.state.tasks.add(task)
        task.add_done_callback(self.state.tasks.discard)

    def _read_body(self, body: Body) -> None:
        """Read more of a body; discard it if its request was answered without it. Raises Refused."""
        if not self._buffer:
            return
        data = body.take(self._buffer)
        if body.complete:
            self._body = None
        if self._exchange is not None and (data or body.complete):
            self._exchange.add(data, complete=body.complete)

    def _scope(self, head: Head, exchange: Exchange) -> dict[str, object]:
        root = self._config.root_path
        return {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "http",
            "path": root + head.path,
            "raw_path": root.encode("ascii") + head.raw_path,
            "query_string": head.query,
            "root_path": root,
            "headers": head.headers,
            "server": self._server,
            "client": self._client,
            "state": self._app_state.copy(),
            "extensions": {PUSH: {"exchange": exchange}},
        }

    def _refuse(self, refused: Refused) -> None:
        """Answer an invalid request in the envelope of all errors, and close the connection."""
        # It never becomes a request of the application, which has a line for each.
        logger.info("a request was refused: %s", refused.message, extra={"status": refused.status})
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.leave()
            if exchange.started:
                self.cut()
                return
        text = {"code": refused.code, "message": refused.message, "status": refused.status}
        body = json.dumps(text).encode()
        lines = [STATUS_LINES[refused.status]]
        for name, value in self.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        )
        self.write(b"".join((*lines, body)))
        self._linger()

    def _linger(self) -> None:
        """Close when the client has read the response. Until then its bytes are discarded."""
        self._lingering = True
        self._received = 0
        self._exchange = self._body = None
        self._buffer.clear()
        self._deadline = self._loop.time() + self._limits.linger_seconds
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    # -- slow clients -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Check for slow clients and deadlines, every `look_seconds`."""
        now = self._loop.time()
        passed, self._looked = now - self._looked, now
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._writing.rest()
        elif self._deadline is not None:
            # A client that still receives the response is not idle.
            self._deadline += passed
        if unsent and self._writing.is_stalled(now, self._written - unsent - _unheard(self.transport)):
            logger.info("a client was cut: it took nothing for %.0f s", self._limits.stall_seconds)
            metrics.CLIENTS_CUT.inc()
            self.cut()
            return
        if self.transport.is_closing():
            return
        if self._body is None or self._exchange is None or not self._exchange.listening:
            self._reading.rest()
        elif self._reading.is_stalled(now, self._received):
            logger.info("a client was cut: it did not send on for %.0f s", self._limits.stall_seconds)
            metrics.CLIENTS_CUT.inc()
            self._refuse(too_slow())
            return
        if self._deadline is not None and now >= self._deadline:
            if self._buffer and not self._lingering:
                self._refuse(too_slow())
            else:
                self.transport.close()


def _unheard(transport: asyncio.Transport) -> int:
    """Bytes in the system's buffer that the client has not received: megabytes for a slow client.

    A slow client reads these for a long time before the system takes more bytes from this process.
    """
    waiting = array("i", [0])
    try:
        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, waiting)
    except OSError:
        return 0
    return waiting[0]


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    """Host and port of one end of a connection; None for a connection without them."""
    address = transport.get_extra_info(name)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
