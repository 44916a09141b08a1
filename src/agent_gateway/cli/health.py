"""What `agent-gateway health` does: asks a running gateway whether it is alive.

A container runs this often, so it imports as little as possible.
"""

import http.client
from typing import Final

import typer

from agent_gateway.settings import LOOPBACK, Settings

NOT_ALIVE: Final = 1
ANSWER_SECONDS: Final = 4.0


def ask(host: str | None, port: int | None) -> None:
    """Ask the gateway at this address, by default that of the settings. Exits with 1 when it is not alive."""
    given = {"host": host, "port": port}
    settings = Settings.read(**{name: value for name, value in given.items() if value is not None})
    fault = fault_of(LOOPBACK.get(settings.host, settings.host), settings.port, ANSWER_SECONDS)
    if fault is not None:
        typer.echo(fault, err=True)
        raise typer.Exit(NOT_ALIVE)
    typer.echo("alive")


def fault_of(host: str, port: int, seconds: float) -> str | None:
    """Why the gateway at this address is not alive; None when it is. Waits `seconds` for each byte."""
    # Not urllib: it would send this request to a proxy that the environment names.
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host} port {port}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{host} port {port} answers GET /healthz with {status}"
