"""One request and its response, as the application receives and sends them."""

import asyncio
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from agent_gateway.server.head import Head

if TYPE_CHECKING:
    from agent_gateway.server.connection import Connection

HIGH_WATER: Final = 64 * 1024
"""Bytes of a body that may wait for the application; then reading pauses."""

PUSH: Final = "agent_gateway.push"
"""This server's extension of ASGI: `scope["extensions"][PUSH]["exchange"]` is the Exchange.

An application that has sent the start of its response may `follow` it in place of `receive`, and may `push`
pieces of the body besides `send`. A middleware that changes bodies has to remove the extension.
"""

_NOT_IN_NAME: Final = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \\"]')
_NOT_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_BODY: Final = frozenset({204, 304})

logger = logging.getLogger(__name__)


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}


class Exchange:
    """A request and its response. Its connection owns it and feeds it."""

    def __init__(self, connection: "Connection", head: Head) -> None:
        self.body = bytearray()
        """Data of the body that the application has not received yet."""
        self.gone = False
        """The client has left: nothing is received or sent."""
        self.started = False
        self.complete = False
        self.listening = False
        """The application waits for data of the client."""
        self.client_waits = head.expects_continue()
        """The client waits for 100 Continue before it sends its body."""
        self._connection = connection
        self._has_more = True
        self._has_news = False
        self._news: asyncio.Event | None = None
        """Made for an application that waits for news: an event takes 800 bytes."""
        self._no_body = head.method == "HEAD"
        self._keep_alive = head.keep_alive
        self._chunked = False
        self._old = head.version == "1.0"
        self._head = b""
        """The head of the response until it is written, nearly always with the first of the body."""
        self._owed: int | None = None
        """Bytes that the response has announced but not sent."""
        self._on_leave: Callable[[], None] | None = None

    # -- what the connection calls -------------------------------------------------------------------

    def add(self, data: bytes, *, complete: bool) -> None:
        """Take more of the body."""
        if self._on_leave is None:
            self.body += data
        self._has_more = not complete
        self._tell()

    def leave(self) -> None:
        """The client has left, or was cut off."""
        self.gone = not self.complete
        self._tell()
        on_leave, self._on_leave = self._on_leave, None
        if self.gone and on_leave is not None:
            on_leave()

    def close_after(self) -> None:
        """Make this response the last one of its connection."""
        self._keep_alive = False

    async def run(self, app: Any, scope: dict[str, object]) -> None:
        """Call the application. In every case the client gets one response or a broken connection."""
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.complete:
                self._connection.cut()
            raise
        except Exception:
            logger.exception("Exception in ASGI application")
        else:
            if not self.complete and not self.gone:
                logger.error("the application did not complete its response")
        if self.complete or self.gone:
            return
        if self.started:
            # A client that takes the end of the connection for the end of the text must see an error.
            self._connection.cut()
        else:
            await self._say_500()

    def _tell(self) -> None:
        """There is news for the application."""
        self._has_news = True
        news, self._news = self._news, None
        if news is not None:
            news.set()

    async def _say_500(self) -> None:
        headers = [(b"content-length", b"21"), (b"content-type", b"text/plain"), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    # -- what the application calls ------------------------------------------------------------------

    async def receive(self) -> dict[str, object]:
        """The next piece of the body, or the disconnect of the client."""
        if self.client_waits and self._has_more and not self.body and not self.started and not self.gone:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.client_waits = False
        if not self.gone and not self.complete:
            self._connection.read_on()
            self.listening = True
            try:
                if not self._has_news:
                    self._news = self._news or asyncio.Event()
                    await self._news.wait()
            finally:
                self.listening = False
            self._has_news = False
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        data, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": data, "more_body": self._has_more}

    async def send(self, message: Any) -> None:
        """Send the next piece of the response. Waits while the client does not read."""
        if self._connection.full:
            await self._connection.writable()
        if self.gone:
            return
        if not self.started:
            self._start(message)
        else:
            self._send_body(message)

    def follow(self, on_leave: Callable[[], None]) -> None:
        """Call this when the client leaves, while the response is not complete.

        What is missing of the request's body is read and discarded, as if the application received it.
        """
        if self.gone:
            on_leave()
            return
        self._on_leave = on_leave
        self.listening = True
        self.body.clear()
        self._connection.read_on()

    def push(self, data: bytes) -> bool:
        """Send a piece of the body as `send` does, but without a switch of tasks.

        False when the client does not keep up: `send` would wait for it, and nothing was sent.
        """
        if self._connection.full:
            return False
        if not self.gone:
            self._write_body(data, more=True)
        return True

    def _start(self, message: Any) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"a response begins with its start, not with {message['type']}")
        self.started = True
        status: int = message["status"]
        if not self._connection.can_stay:
            # Nobody wants the rest of this request, so the connection does not wait for its end.
            self._keep_alive = False
        lines = [STATUS_LINES[status]]
        for name, value in (*self._connection.default_headers, *message.get("headers", ())):
            if _NOT_IN_NAME.search(name) or _NOT_IN_VALUE.search(value):
                raise RuntimeError("a header of the response has letters that no header may have")
            lowered = name.lower()
            if lowered == b"content-length":
                self._owed = int(value)
            elif lowered == b"connection":
                if b"close" in value.lower():
                    self._keep_alive = False
                continue
            elif lowered == b"transfer-encoding":
                # This server decides how a response is framed.
                continue
            lines += (name, b": ", value, b"\r\n")
        self._no_body = self._no_body or status in _NO_BODY
        if self._owed is None and not self._no_body:
            if self._old:
                self._keep_alive = False
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)
        asyncio.get_running_loop().call_soon(self._write_head)

    def _write_head(self) -> None:
        """Write the head if no body has come with it: the first of it may take time."""
        head, self._head = self._head, b""
        if head and not self.gone:
            self._connection.write(head)

    def _send_body(self, message: Any) -> None:
        if message["type"] != "http.response.body":
            raise RuntimeError(f"unexpected {message['type']} in a response")
        self._write_body(message.get("body", b""), more=message.get("more_body", False))

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if self.complete or not self.started:
            raise RuntimeError("a piece of a body without its response")
        if self._no_body:
            body = b""
        elif self._chunked:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif self._owed is not None:
            self._owed -= len(body)
            if self._owed < 0 or (self._owed and not more):
                raise RuntimeError("the body of a response has not the size that its head says")
        if self._head:
            body = self._head + body
            self._head = b""
        if body:
            self._connection.write(body)
        if not more:
            self.complete = True
            self._on_leave = None
            self._tell()
            self._connection.response_complete(keep_alive=self._keep_alive)
