"""The parts of a running bench: stub, load client, and systems, each started when first needed."""

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

from bench.gateway import Gateway, migrate
from bench.load import Client, Load
from bench.machine import Cores, pinned
from bench.postgres import Postgres
from bench.servers import Server, wait_until
from bench.yardsticks import Stub, compiled, natural, nginx

T = TypeVar("T")

WARMING = (Load(16, 200, 1), Load(16, 32, 100))
"""Played before anything is measured: connections, caches and prepared statements."""

SETTLE_SECONDS = 120.0


class Bench:
    """A context manager. `smoke` makes everything tiny: it proves that the bench works, not a speed."""

    def __init__(self, *, smoke: bool = False) -> None:
        self.smoke = smoke
        self.cores = Cores.unpinned() if smoke else Cores.of_this_machine()
        self.programs = compiled()
        self.client = Client(self.programs, self.cores.client)
        self._shared: dict[str, Server] = {}
        self._warmed: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Its own threads stay off the server's core, too.
            stack.enter_context(pinned(self.cores.client))
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

    @contextmanager
    def scenario(self) -> Generator[None]:
        """At its end the servers that it has of its own are stopped."""
        with ExitStack() as self._scenario:
            self._own: dict[str, Server] = {}
            yield

    @cached_property
    def postgres(self) -> Postgres:
        """The Postgres server, started when first needed."""
        return self._stack.enter_context(Postgres(self.cores.database))

    @cached_property
    def _template(self) -> str:
        url = self.postgres.create_database()
        migrate(url, self.folder)
        return url

    def database_url(self, system: str) -> str:
        """A fresh, migrated database for a system; empty for SQLite, which makes its own."""
        return self.postgres.create_database(self._template) if system == "postgres" else ""

    def begin(self, systems: Iterable[str]) -> None:
        """Start systems for all scenarios, at the same time; `system` waits until one is ready."""
        for name in systems:
            self._shared[name] = server = self._system(name)
            self._stack.callback(server.kill)

    def system(self, name: str) -> Server:
        """A system that was begun, running and warm."""
        server = self._shared[name]
        if name not in self._warmed:
            self.warm(server.ready())
            self._warmed.add(name)
        return server

    def own(self, name: str, start: Callable[[], Server]) -> Server:
        """A server of this scenario's own, warm; the same one in each round."""
        if name not in self._own:
            self._own[name] = self.warm(self._scenario.enter_context(start()))
        return self._own[name]

    def own_system(self, name: str) -> Server:
        """A system that this scenario may change; a smoke run has no time for another one."""
        return self.system(name) if self.smoke else self.own(name, lambda: self._system(name))

    def warm(self, server: Server) -> Server:
        """Play what makes it as fast as it will be."""
        for load in WARMING[: self.size(2, 1)] if server.name != "embedded" else ():
            self.client.play(server, load)
        return server

    def settle(self) -> None:
        """Wait for the runs of clients that left: they would take part in what is measured next."""
        wait_until(lambda: self.stub.stats()["streams_open"] == 0, SETTLE_SECONDS, "all runs have ended")

    def gateway(self, system: str, database_url: str) -> Gateway:
        """This gateway before the stub."""
        return Gateway(
            system, self.cores.server, self.folder, backend_url=self.stub.url, database_url=database_url
        )

    def _system(self, name: str) -> Server:
        if name == "nginx":
            return nginx(self.stub, self.cores, self.folder)
        if name == "natural":
            return natural(self.stub, self.cores, self.folder)
        return self.gateway(name, self.database_url(name))
