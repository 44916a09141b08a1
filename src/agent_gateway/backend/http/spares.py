"""Connections on which a request was just answered, for a next request that may be sent twice."""

import asyncio

from agent_gateway.backend.http.connection import Connection


class Spares:
    """Keeps such connections for a moment; `seconds` is less than any backend keeps them open.

    A spare one may turn out to be closed, which looks like a lost answer. So only the reading of events,
    which can be repeated, takes one (R4).
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[Connection, asyncio.TimerHandle] = {}
        self._closed = False

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._kept

    def keep(self, connection: Connection) -> None:
        """Keep a connection whose answer was read, if the backend takes more requests on it."""
        if connection.is_reusable and not self._closed:
            loop = asyncio.get_running_loop()
            self._kept[connection] = loop.call_later(self._seconds, self._drop, connection)

    def take(self) -> Connection | None:
        """The connection that was kept last, if it is still open. It is the caller's to close."""
        while self._kept:
            connection, timer = self._kept.popitem()
            timer.cancel()
            if connection.is_reusable:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close them all, and keep no more."""
        self._closed = True
        for connection, timer in self._kept.items():
            timer.cancel()
            connection.close()
        self._kept.clear()

    def _drop(self, connection: Connection) -> None:
        del self._kept[connection]
        connection.close()
