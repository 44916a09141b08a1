"""Where the gateway listens. Addresses are bound before anything else is done."""

import errno
import socket
from collections.abc import Iterable
from typing import Final

from agent_gateway.errors import ConfigError

EVERYWHERE: Final = "::"
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What binding says of an address that the machine has by name only, as of IPv6 in many containers."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to all addresses of this host, which do not listen yet; close them.

    With port 0 it is one, since each would get a port of its own. `::` is IPv4, too, where the system can.
    Addresses that the machine does not have are left out, unless it has none of them. Raises ConfigError.
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
    """Host and port that these are bound to, as numbers; an IPv4 address if there is one."""
    names = sorted((one.family != socket.AF_INET, one.getsockname()) for one in sockets)
    host, port = names[0][1][:2]
    return str(host), int(port)


def url_of(host: str, port: int) -> str:
    """The URL of what listens on this address."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _bound(family: int, address: object) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # What is left of connections of a process that ended does not keep the port from the next.
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
        return f"{url_of(host, port)} is in use by another process: choose another --port, or end that one"
    return f"can not listen on {url_of(host, port)}: {error.strerror}"
