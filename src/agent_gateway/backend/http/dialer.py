"""Makes connections to the backend: its name becomes addresses, and the first one that answers is taken."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from async_lru import alru_cache

from agent_gateway.backend.http.address import Address
from agent_gateway.backend.http.connection import Connection
from agent_gateway.errors import BackendUnreachable

NAME_SECONDS: Final = 10
"""How long the addresses of a name are kept. A backend that moves is found again after this time."""
NEXT_SECONDS: Final = 0.25
"""How long one address has before the next one is tried beside it (RFC 8305 names this value)."""


class Dialer:
    """Opens connections to one backend, each within `seconds`."""

    def __init__(self, address: Address, seconds: float) -> None:
        self._host = address.host
        self._is_ip = _is_ip(address.host)
        self._port = address.port
        self._tls = ssl.create_default_context() if address.tls else None
        self._seconds = seconds
        self._turn = 0
        self._resolve = alru_cache(maxsize=1, ttl=NAME_SECONDS)(self._look_up)
        """Calls at the same time share one look-up; one that fails is not kept."""

    async def dial(self) -> Connection:
        """A new connection. Raises BackendUnreachable, and then nothing was sent."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._first(await self._addresses())
        except (OSError, UnicodeError) as error:
            # OSError has the errors of names, timeouts and TLS below it.
            self._resolve.cache_clear()
            raise BackendUnreachable(type(error).__name__, nothing_sent=True) from None

    async def _addresses(self) -> Sequence[str]:
        """The addresses of the backend, each time with another one in front: that spreads the load."""
        if self._is_ip:
            return (self._host,)
        found = await self._resolve()
        self._turn += 1
        first = self._turn % len(found)
        return (*found[first:], *found[:first])

    async def _look_up(self) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(where[0]) for *_, where in found))

    async def _first(self, addresses: Sequence[str]) -> Connection:
        if len(addresses) == 1:
            return await self._connect(addresses[0])
        waiting = list(addresses)
        trying: set[asyncio.Task[Connection]] = set()
        error: BaseException | None = None
        try:
            while waiting or trying:
                if waiting:
                    trying.add(asyncio.create_task(self._connect(waiting.pop(0))))
                seconds = NEXT_SECONDS if waiting else None
                done, _ = await asyncio.wait(trying, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    trying.discard(one)
                    error = one.exception()
                    if error is None:
                        return one.result()
            assert error is not None
            raise error
        finally:
            for one in trying:
                one.cancel()
                one.add_done_callback(_close_unused)

    async def _connect(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        name = self._host.rstrip(".") if self._tls else None
        _, connection = await loop.create_connection(
            Connection, address, self._port, ssl=self._tls, server_hostname=name
        )
        return connection


def _close_unused(dialing: asyncio.Task[Connection]) -> None:
    """Another address was faster."""
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
