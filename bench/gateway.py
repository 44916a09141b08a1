"""This gateway with the defaults of the project: only what must be set is set."""

import subprocess
import sys
from pathlib import Path

from bench.servers import Server, free_port

API_KEY = "app-bench"
SECRET_KEY = "bench-bench-bench-bench-bench-bench"


def gateway(
    name: str,
    cores: frozenset[int],
    folder: Path,
    *,
    backend_url: str = "",
    database_url: str = "",
    arguments: tuple[str, ...] = (),
) -> Server:
    """`agent-gateway serve`: with SQLite unless a URL is given, with the embedded agent without a backend."""
    port = free_port()
    data = folder / f"{name}-{port}"
    data.mkdir()
    environ = {"AGENT_GATEWAY_DATA_DIR": str(data), "AGENT_GATEWAY_API_KEY": API_KEY}
    if backend_url:
        environ["AGENT_GATEWAY_BACKEND_URL"] = backend_url
    if database_url:
        environ["AGENT_GATEWAY_DATABASE_URL"] = database_url
        environ["AGENT_GATEWAY_SECRET_KEY"] = SECRET_KEY
    command = [sys.executable, "-m", "agent_gateway", "serve", "--port", str(port), *arguments]
    return Server(name, command, port, cores=cores, folder=folder, ready="/readyz", environ=environ)


def migrate(database_url: str, folder: Path) -> None:
    """`agent-gateway migrate`, as an operator does before the first start on Postgres."""
    environ = {"AGENT_GATEWAY_DATABASE_URL": database_url, "AGENT_GATEWAY_SECRET_KEY": SECRET_KEY}
    command = [sys.executable, "-m", "agent_gateway", "migrate"]
    subprocess.run(command, check=True, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
