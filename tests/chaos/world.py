"""The world that is broken: gateway processes, a database, a backend, and a record of what happened."""

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.plan import Plans
from tests.chaos.postgres import ChaosPostgres
from tests.chaos.replica import Replica
from tests.chaos.view import Sent
from tests.support.fakes.scripted_backend import ScriptedBackend

API_KEY: Final = "app-chaos"

_APP_FILE: Final = """
name: Chaos
mode: chat
composition:
  layers:
    - {name: prompt, type: plain.prompt, config: {prefix: You are a helpful assistant.}}
    - {name: user, type: plain.prompt, config: {user: "${query}"}}
    - {name: history, type: pydantic_ai.history}
    - {name: llm, type: llm}
"""


@dataclass(frozen=True)
class Config:
    """One run of the suite."""

    seed: int
    seconds: float = 10.0
    processes: int = 3
    agents: int = 0
    """Processes of `agent-gateway backend` on the same database; with none there is a scripted backend."""
    talks: int = 20
    """Conversations at the same time."""
    lease_seconds: float = 1.5
    drain_seconds: float = 4.0
    faults: frozenset[str] = frozenset()
    """Kinds of faults that may be scheduled."""
    queue: bool = True
    """Whether some send their next message while a turn runs."""

    @property
    def sweep_seconds(self) -> float:
        """Within this time a turn is adopted whose process is gone: lease, heartbeat and sweep (R11)."""
        return self.lease_seconds + 2.0

    @property
    def quiet_seconds(self) -> float:
        """Within this time after the last fault every turn must have ended: bounds of a run, a stop and a
        take-over, one after the other, with room for a slow machine."""
        return 45.0


@dataclass
class Applied:
    """A fault as it really happened."""

    kind: str
    replica: int | None
    """None: it hit everybody."""
    began: float
    ended: float = 0.0
    note: str = ""
    gone_after: float | None = None
    """Of a deploy: seconds from SIGTERM until the process was gone."""


@dataclass
class Record:
    """All that the check needs, besides the rows."""

    sent: list[Sent] = field(default_factory=list)
    faults: list[Applied] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Failures of the world as a whole: a process that did not exit, turns that did not end."""


class World:
    """Everything of one run. Use `open_world`."""

    def __init__(self, config: Config, postgres: ChaosPostgres, database: str, folder: Path) -> None:
        self.config = config
        self.postgres = postgres
        self.database = database
        self.record = Record()
        self.backend = ScriptedBackend()
        self.backend.script = Plans()
        self.backend.start()
        app_file = folder / "app.yaml"
        app_file.write_text(_APP_FILE)
        port = int(self.backend.url.rpartition(":")[2])
        self.agents = [
            Replica(config.processes + number, folder, (), postgres.socket, "backend")
            for number in range(config.agents)
        ]
        backends = [agent.address for agent in self.agents] or [("127.0.0.1", port)]
        self.replicas = [
            Replica(number, folder, backends, postgres.socket) for number in range(config.processes)
        ]
        self._settings = {
            "API_KEY": API_KEY,
            "APP_FILE": str(app_file),
            # Processes of the agent need their time to start.
            "BACKEND_RECONNECT_SECONDS": "40" if config.agents else "15",
            "DATA_DIR": str(folder),
            "DATABASE_URL": f"postgresql://{{role}}@127.0.0.1:{{port}}/{database}",
            "DRAIN_SECONDS": str(config.drain_seconds),
            "HOST": "127.0.0.1",
            "IDLE_TIMEOUT_SECONDS": "30",
            "LEASE_SECONDS": str(config.lease_seconds),
            "PING_SECONDS": "1",
            "SECRET_KEY": "chaos-secret-as-long-as-they-have-to-be",
            "TURN_TIMEOUT_SECONDS": "120",
        }

    @property
    def everybody(self) -> list[Replica]:
        """All processes, by their numbers."""
        return [*self.replicas, *self.agents]

    async def start(self, replica: Replica) -> None:
        """Start a process of this world."""
        await replica.start(self._settings)

    def somewhere(self, dice: random.Random) -> Replica:
        """A process to talk to, as a load balancer picks one: it mostly knows which are there."""
        there = [replica for replica in self.replicas if replica.running]
        return dice.choice(there if there and dice.random() < 0.9 else self.replicas)

    async def unended(self) -> int:
        """How many turns have not ended."""
        async with self.postgres.connection(self.database) as connection:
            return len(await connection.fetch("SELECT 1 FROM turns WHERE state <> 'ended'"))


@asynccontextmanager
async def open_world(config: Config, postgres: ChaosPostgres) -> AsyncGenerator[World]:
    """A world with all processes ready; gone without a trace afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    database = await postgres.create_database()
    world = World(config, postgres, database, folder)
    try:
        for replica in world.everybody:
            await replica.open()
            await world.start(replica)
        for replica in world.everybody:
            await replica.wait_until_ready()
        yield world
    finally:
        for replica in world.everybody:
            await replica.close()
        await asyncio.to_thread(world.backend.close)
        await postgres.drop_database(database)
        shutil.rmtree(folder, ignore_errors=True)


def now() -> float:
    """Seconds on the clock that the database's times are compared with (same machine)."""
    return time.time()
