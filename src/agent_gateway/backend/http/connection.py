"""One connection to the backend: a request, its answer, and perhaps one more request.

The bytes of an answer's body go to a callback inside `data_received`, so that an event costs one call and no
switch of tasks. A connection holds no more of an answer than one read and MAX_SILENCE bytes of a head.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import httptools
from typing_extensions import override

from agent_gateway.errors import BackendUnreachable

MAX_SILENCE: Final = 64 * 1024
"""Bytes without a piece of a body: the longest head with interim answers before it, or trailers."""
LARGE_READ: Final = 64 * 1024
"""Bytes of one read after which others have their turn: they are a millisecond of work."""
MAX_BODY: Final = 64 * 1024 * 1024
"""The longest body that is read whole."""

Take = Callable[[bytes], object]
"""Takes the bytes of a body from one read. When it returns True, it wants no more."""


class Head:
    """Status and headers of an answer."""

    def __init__(self) -> None:
        self.status = 0
        self._headers: dict[bytes, bytes] = {}

    def add(self, name: bytes, value: bytes) -> None:
        """A header arrived; several of one name make a list."""
        name = name.lower()
        before = self._headers.get(name)
        self._headers[name] = value if before is None else before + b", " + value

    def header(self, name: bytes) -> str:
        """The value of a header in small letters; empty when there is none."""
        return self._headers.get(name, b"").decode("latin-1").strip().lower()

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body goes on until the backend closes the connection, as in HTTP/1.0."""
        return b"content-length" not in self._headers and "chunked" not in self.header(b"transfer-encoding")


class Connection(asyncio.Protocol):
    """Sends one request at a time. All methods raise BackendUnreachable when the answer is cut or is no HTTP.

    `close` it in the end, whatever happened.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment] # comes with the connection
        self._parser: httptools.HttpResponseParser | None = None
        """None while nothing was asked for."""
        self._head = Head()
        self._answered = False
        """The head is complete; what follows is the body."""
        self._complete = False
        """The whole answer has arrived, or as much of it as was wanted."""
        self._stays = False
        """After a complete answer: the backend takes another request."""
        self._error: Exception | None = None
        self._pieces: list[bytes] = []
        """Pieces of the body that nobody has taken."""
        self._take: Take | None = None
        self._silence = 0
        """Bytes since the last piece of a body."""
        self._waiter: asyncio.Future[None] | None = None
        self.gave_up = False
        """No answer came in time; the backend did not close the connection."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent; the backend may still close before it answers."""
        return self._complete and self._stays and not self._transport.is_closing()

    async def send(self, request: bytes, seconds: float) -> Head:
        """Send a request, and wait for the head of its answer; at most so long, also for `body` after it."""
        if self._transport.is_closing():
            raise self._error or BackendUnreachable("the connection was closed")
        self._parser = httptools.HttpResponseParser(self)
        # Backends that end lines with LF alone have always been understood.
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
        self._head = Head()
        self._answered = self._complete = self._stays = False
        self._take = None
        self._silence = 0
        self._timer = self._loop.call_later(seconds, self._give_up)
        self._transport.write(request)
        while not self._answered:
            await self._wait()
        return self._head

    async def deliver(self, take: Take) -> None:
        """Hand over the body of the answer, read by read, until its end or until `take` returns True.

        It may take any time. Raises what `take` raises; nothing is handed over after that.
        """
        self._stop_timer()
        await self._deliver(take)

    async def _deliver(self, take: Take) -> None:
        self._take = take
        if self._pieces:
            self._hand_over(take)
        while not self._complete:
            await self._wait()

    async def body(self) -> bytes:
        """The whole body of the answer."""
        pieces: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > MAX_BODY:
                raise BackendUnreachable("the answer is too long")
            pieces.append(data)

        await self._deliver(take)
        self._stop_timer()
        return b"".join(pieces)

    def close(self) -> None:
        """Close at once. Nothing more is handed over."""
        self._take = None
        self._parser = None
        self._stop_timer()
        self._transport.abort()

    # -- what the event loop calls --------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if len(data) >= LARGE_READ:
            # The event loop would read on, 32 times in a row, before it looked at any other connection.
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)
        parser = self._parser
        if parser is None or self._complete:
            # It belongs to no request: whatever follows could not be told from it.
            self._stays = False
            self.close()
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._error = BackendUnreachable("the answer is not HTTP")
            self._stays = False
        if self._pieces:
            self._silence = 0
            if self._take is not None:
                try:
                    self._hand_over(self._take)
                except Exception as error:  # noqa: BLE001 - it is raised from `deliver`
                    # Also when the end of the answer came in the same read.
                    self._error = error
                    self._complete = self._stays = False
        else:
            self._silence += len(data)
            if self._silence > MAX_SILENCE and not self._complete:
                self._error = BackendUnreachable("the head of the answer is too long")
        if self._error is not None:
            self.close()
        if self._take is None or self._complete or self._error is not None:
            self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stays = False
        if not self._complete and self._error is None:
            if exc is None and self._answered and self._head.ends_with_connection:
                self._complete = True
            else:
                self._error = BackendUnreachable("the connection was cut")
        self._wake()

    # -- what the parser calls ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Also called when something follows a complete answer."""
        self._stays = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Also called for trailers, which are ignored."""
        if not self._answered:
            self._head.add(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete, unless it is that of an interim answer."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            self._head = Head()
        elif not self._answered:
            self._head.status = status
            self._answered = True

    def on_body(self, piece: bytes) -> None:
        """A piece of the body, without its framing."""
        if not self._complete:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """Behind an interim answer, too."""
        if self._answered and not self._complete:
            assert self._parser is not None
            self._complete = True
            self._stays = self._parser.should_keep_alive()

    # -------------------------------------------------------------------------------------------------

    def _hand_over(self, take: Take) -> None:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if take(data) is True:
            self._complete = True
            self._stays = False

    async def _wait(self) -> None:
        """Wait until something has happened; raises the error that ended the answer."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _give_up(self) -> None:
        self.gave_up = True
        if self._error is None:
            self._error = BackendUnreachable("no answer in time")
        self.close()
        self._wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
