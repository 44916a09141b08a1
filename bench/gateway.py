"""This gateway with the defaults of the project: only what must be set is set."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.servers import Server, free_port

API_KEY: Final = "app-bench"
SECRET_KEY: Final = "bench-bench-bench-bench-bench-bench"


class Gateway(Server):
    """`agent-gateway serve`: with SQLite unless a URL is given, with the embedded agent without a backend."""

    def __init__(
        self,
        name: str,
        cores: frozenset[int],
        folder: Path,
        *,
        backend_url: str = "",
        database_url: str = "",
        workers: int = 1,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        port = free_port()
        data = folder / f"{name}-{port}"
        data.mkdir()
        self.database = database_url or data / "agent-gateway.db"
        """Its URL, or the file of SQLite."""
        given = {"AGENT_GATEWAY_DATA_DIR": str(data), "AGENT_GATEWAY_API_KEY": API_KEY, **(environ or {})}
        if backend_url:
            given["AGENT_GATEWAY_BACKEND_URL"] = backend_url
        if database_url:
            given |= _of_postgres(database_url)
        command = [sys.executable, "-m", "agent_gateway", "serve", "--port", str(port)]
        command += ["--workers", str(workers)] if workers > 1 else []
        super().__init__(name, command, port, cores=cores, folder=folder, ready="/readyz", environ=given)


def migrate(database_url: str, folder: Path) -> None:
    """`agent-gateway migrate`, as an operator does before the first start on Postgres."""
    command = [sys.executable, "-m", "agent_gateway", "migrate"]
    environ = {"PATH": os.environ["PATH"], **_of_postgres(database_url)}
    subprocess.run(command, check=True, cwd=folder, env=environ, stdout=subprocess.DEVNULL)


def _of_postgres(url: str) -> dict[str, str]:
    return {"AGENT_GATEWAY_DATABASE_URL": url, "AGENT_GATEWAY_SECRET_KEY": SECRET_KEY}
