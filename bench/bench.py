"""The parts of a running bench: stub, load client, and systems, each started when first needed."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

from bench.gateway import gateway, migrate
from bench.load import Client, Load
from bench.machine import Cores
from bench.postgres import Postgres
from bench.servers import Server
from bench.yardsticks import Stub, compiled, natural, nginx

T = TypeVar("T")

WARMING = (Load(16, 200, 1), Load(16, 32, 100))
"""Played before anything is measured: connections, caches and prepared statements."""


class Bench:
    """A context manager. `smoke` makes everything tiny: it proves that the bench works, not a speed."""

    def __init__(self, *, smoke: bool = False) -> None:
        self.smoke = smoke
        self.cores = Cores.of_this_machine()
        self.programs = compiled()
        self.client = Client(self.programs, self.cores.client)
        self._systems: dict[str, Server] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="bench-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder.chmod(0o755)  # nginx's workers give up being root
            self.stub = stack.enter_context(Stub(self.programs, self.cores, self.folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def size(self, full: T, smoke: T) -> T:
        """How large something is in this run."""
        return smoke if self.smoke else full

    @property
    def postgres(self) -> Postgres:
        """The Postgres server, started when first needed."""
        if not hasattr(self, "_postgres"):
            self._postgres = self._stack.enter_context(Postgres(self.cores.database))
        return self._postgres

    def database_url(self) -> str:
        """A fresh, migrated database of Postgres."""
        url = self.postgres.create_database()
        migrate(url, self.folder)
        return url

    def system(self, name: str) -> Server:
        """A system, running and warm."""
        if name not in self._systems:
            server = self._stack.enter_context(self.fresh(name))
            for load in WARMING[: self.size(2, 1)]:
                self.client.play(server, load)
            self._systems[name] = server
        return self._systems[name]

    def fresh(self, name: str) -> Server:
        """A system of its own, for a scenario that changes it; the caller stops it."""
        if name == "nginx":
            return nginx(self.stub, self.cores, self.folder)
        if name == "natural":
            return natural(self.stub, self.cores, self.folder)
        url = self.database_url() if name == "postgres" else ""
        return gateway(name, self.cores.server, self.folder, backend_url=self.stub.url, database_url=url)
