"""What `agent-gateway doctor` does: probes a deployment from outside, as a client, through all its proxies.

It needs neither the settings nor the database of the gateway, and no library: it may run anywhere.
"""

from collections.abc import Iterator

import typer

from agent_gateway.cli.doctor import streams, surface
from agent_gateway.cli.doctor.client import Gateway
from agent_gateway.cli.findings import Finding, tell


def doctor(url: str, key: str, user: str, idle: float) -> None:
    """Say of each point whether it is good, and what to change. Exits with FAULTS when one is not.

    Raises ConfigError for a URL or a key that cannot be used.
    """
    gateway = Gateway.at(url, key, user)
    typer.echo(f"note: real turns are run as the user {user!r}; their conversations are deleted", err=True)
    tell(_findings(gateway, idle))


def _findings(gateway: Gateway, idle: float) -> Iterator[Finding]:
    if (yield from surface.look(gateway)):
        yield from streams.look(gateway, idle)
