"""Binds the addresses on which the gateway listens, before anything else is done."""

import errno
import socket
from collections.abc import Iterable
from typing import Final

from agent_gateway.errors import ConfigError

EVERYWHERE: Final = "::"
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors for an address that exists only by name, like IPv6 addresses in many containers."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to all addresses of this host. They do not listen yet; the caller closes them.

    With port 0 there is one socket, because each would get another port. `::` includes IPv4 where the system
    supports that. Addresses that the machine does not have are skipped, unless it has none of them. Raises
    ConfigError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"AGENT_GATEWAY_HOST: {host!r} is no address of this machine") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    bound: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in addresses:
        try:
            bound.append(_bound(family, address))
        except OSError as error:
            if error.errno in _NOT_HERE:
                missing = error
                continue
            for one in bound:
                one.close()
            raise ConfigError(_refusal(error, host, port)) from None
        if port == 0:
            break
    if missing is not None and not bound:
        raise ConfigError(_refusal(missing, host, port))
    return bound


def listening_on(sockets: Iterable[socket.socket]) -> tuple[str, int]:
    """The numeric host and port to which these sockets are bound; an IPv4 address if there is one."""
    names = sorted((one.family != socket.AF_INET, one.getsockname()) for one in sockets)
    host, port = names[0][1][:2]
    return str(host), int(port)


def url_of(host: str, port: int) -> str:
    """The URL of a server on this address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _bound(family: int, address: object) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Remains of the connections of an ended process do not block the port.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            host = address[0]  # type: ignore[index]
            alone = host != EVERYWHERE or not socket.has_dualstack_ipv6()
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        one.bind(address)  # type: ignore[arg-type]
    except BaseException:
        one.close()
        raise
    return one


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{url_of(host, port)} is in use by another process: choose another --port, or stop that one"
    return f"cannot listen on {url_of(host, port)}: {error.strerror}"
