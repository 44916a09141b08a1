"""Faults: what can happen, when a seed lets it happen, and how it is done."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from tests.chaos.replica import Replica
from tests.chaos.tcp_fault_proxy import TcpFaultProxy
from tests.chaos.world import Applied, World, now

EXIT_SLACK: Final = 7.0
"""Seconds that a process may need beyond DRAIN_SECONDS to be gone: a cancel that hangs is given five."""


@dataclass(frozen=True)
class Fault:
    """One thing that will happen: when (seconds from the start), what, to whom, for how long."""

    at: float
    kind: str
    replica: int | None
    seconds: float


PROCESS_FAULTS: Final[dict[str, tuple[int, float, float]]] = {
    # kind: (weight, shortest, longest); lengths marked below as leases are multiples of one
    "kill": (5, 0.1, 1.5),
    "freeze": (4, 1.3, 2.5),
    "nap": (2, 0.1, 0.6),
    "deploy": (4, 0.0, 0.5),
    "db_terminate": (3, 0.0, 0.0),
    "db_partition": (2, 1.2, 2.5),
    "db_stall": (2, 0.2, 2.0),
}
IN_LEASES: Final = frozenset(
    f"{who}{kind}" for who in ("", "agent_") for kind in ("freeze", "nap", "db_partition", "db_stall")
)

LINK_FAULTS: Final[dict[str, tuple[int, float, float]]] = {
    "client_reset": (4, 0.0, 0.0),
    "client_tear": (4, 0.0, 0.0),
    "client_stall": (2, 0.3, 2.0),
    "client_throttle": (2, 0.5, 2.0),
    "backend_reset": (4, 0.0, 0.0),
    "backend_tear": (3, 0.0, 0.0),
    "backend_refuse": (3, 0.2, 2.0),
    "backend_stall": (2, 0.3, 2.0),
    "backend_throttle": (1, 0.5, 2.0),
}
WORLD_FAULTS: Final[dict[str, tuple[int, float, float]]] = {
    "blackout": (1, 0.1, 1.0),
    "postgres_crash": (2, 0.2, 4.0),
}
AGENT_FAULTS: Final[dict[str, tuple[int, float, float]]] = {
    "agent_kill": (5, 0.1, 1.5),
    "agent_freeze": (4, 1.3, 2.5),
    "agent_nap": (2, 0.1, 0.6),
    "agent_deploy": (3, 0.0, 0.5),
    "agent_db_terminate": (2, 0.0, 0.0),
    "agent_db_partition": (2, 1.2, 2.5),
    "agent_db_stall": (2, 0.2, 2.0),
}
"""Of the processes of the embedded agent, where there are some."""
ALL_FAULTS: Final = frozenset({*PROCESS_FAULTS, *LINK_FAULTS, *WORLD_FAULTS, *AGENT_FAULTS})

PROCESS_EVERY: Final = 1.9
LINK_EVERY: Final = 0.9
WORLD_EVERY: Final = 25.0
"""Mean seconds between two faults of a sort."""
THROTTLE: Final = 4_000.0


def schedule(
    world_seed: int, seconds: float, processes: int, kinds: frozenset[str], lease: float, agents: int = 0
) -> list[Fault]:
    """The faults of a seed in order of time; always the same for the same arguments."""
    dice = random.Random(f"faults {world_seed}")
    faults: list[Fault] = []
    busy_until = [0.0] * (processes + agents)

    def moments(every: float) -> Iterator[float]:
        at = dice.uniform(0.3, 1.5) * every
        while at < seconds - 0.5:
            yield at
            at += dice.uniform(0.3, 1.7) * every

    def pick(table: dict[str, tuple[int, float, float]]) -> tuple[str, float] | None:
        allowed = [kind for kind in table if kind in kinds]
        if not allowed:
            return None
        kind = dice.choices(allowed, [table[kind][0] for kind in allowed])[0]
        length = dice.uniform(*table[kind][1:])
        return kind, length * lease if kind in IN_LEASES else length

    def hit(table: dict[str, tuple[int, float, float]], first: int, count: int) -> None:
        for at in moments(PROCESS_EVERY):
            chosen, victim = pick(table), first + dice.randrange(count)
            # One at a time for each process; that several are away together still happens.
            if chosen and busy_until[victim] <= at:
                faults.append(Fault(at, chosen[0], victim, chosen[1]))
                busy_until[victim] = at + chosen[1] + 2.0

    hit(PROCESS_FAULTS, 0, processes)
    faults += [
        Fault(at, chosen[0], dice.randrange(processes), chosen[1])
        for at in moments(LINK_EVERY)
        if (chosen := pick(LINK_FAULTS))
    ]
    faults += [
        Fault(at, chosen[0], None, chosen[1]) for at in moments(WORLD_EVERY) if (chosen := pick(WORLD_FAULTS))
    ]
    if agents:
        hit(AGENT_FAULTS, processes, agents)
    return sorted(faults, key=lambda fault: fault.at)


class Injector:
    """Does what the schedule says; `heal` makes the world whole again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._busy = [asyncio.Lock() for _ in world.everybody]
        """Only one fault at a time stops or starts the same process."""

    async def play(self, faults: list[Fault]) -> None:
        """All faults, each at its time; ends when the last one is over."""
        start = now()
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                await asyncio.sleep(max(0.0, start + fault.at - now()))
                tasks.create_task(self._apply(fault))

    async def heal(self) -> None:
        """Every process runs, every link is good."""
        for replica in self._world.everybody:
            for link in (replica.clients, replica.backend, replica.database):
                await link.heal()
            replica.signal(signal.SIGCONT)
            if not replica.running:
                await self._world.start(replica)
        for replica in self._world.everybody:
            await replica.wait_until_ready()

    async def _apply(self, fault: Fault) -> None:
        if fault.replica is None:
            await self._to_the_world(fault)
        elif fault.kind in PROCESS_FAULTS or fault.kind in AGENT_FAULTS:
            async with self._busy[fault.replica]:
                await self._to_a_process(fault, self._world.everybody[fault.replica])
        else:
            await self._to_a_link(fault, self._world.replicas[fault.replica])

    def _begin(self, fault: Fault) -> Applied:
        applied = Applied(fault.kind, fault.replica, now())
        self._world.record.faults.append(applied)
        return applied

    async def _to_a_process(self, fault: Fault, replica: Replica) -> None:
        applied = self._begin(fault)
        match fault.kind.removeprefix("agent_"):
            case "kill":
                await replica.kill()
                await asyncio.sleep(fault.seconds)
                await self._start(replica)
            case "freeze" | "nap":
                replica.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                replica.signal(signal.SIGCONT)
            case "deploy":
                await self._deploy(replica, applied, fault.seconds)
            case "db_terminate":
                applied.note = f"{await self._terminate(replica)} connections"
            case "db_partition":
                await _for_a_while(fault, replica.database, _partition)
            case _:
                await _for_a_while(fault, replica.database, lambda link: link.stall())
        applied.ended = now()

    async def _deploy(self, replica: Replica, applied: Applied, pause: float) -> None:
        replica.terminate()
        status = await replica.wait_until_gone(self._world.config.drain_seconds + EXIT_SLACK)
        if status is None:
            self._world.record.problems.append(
                f"process {replica.number} did not exit after SIGTERM within DRAIN_SECONDS"
            )
            await replica.kill()
        applied.gone_after = now() - applied.began
        applied.note = f"gone after {applied.gone_after:.2f} s"
        await asyncio.sleep(pause)
        await self._start(replica)

    async def _start(self, replica: Replica) -> None:
        """Start it again. The fault of an agent lasts until it is there: gateways are many, agents few."""
        await self._world.start(replica)
        if replica in self._world.agents:
            with suppress(TimeoutError):
                await replica.wait_until_ready()

    async def _terminate(self, replica: Replica) -> int:
        try:
            return await self._world.postgres.terminate(self._world.database, replica.number)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            # The server is away just now, and so are its connections.
            return 0

    async def _to_a_link(self, fault: Fault, replica: Replica) -> None:
        applied = self._begin(fault)
        where, _, what = fault.kind.partition("_")
        link = replica.clients if where == "client" else replica.backend
        match what:
            case "reset":
                link.reset()
            case "tear":
                link.tear()
            case "refuse":
                await _for_a_while(fault, link, _partition)
            case "stall":
                await _for_a_while(fault, link, lambda link: link.stall())
            case _:
                await _for_a_while(fault, link, lambda link: link.throttle(THROTTLE))
        applied.ended = now()

    async def _to_the_world(self, fault: Fault) -> None:
        applied = self._begin(fault)
        if fault.kind == "postgres_crash":
            await self._world.postgres.crash()
            await asyncio.sleep(fault.seconds)
            await self._world.postgres.restart()
        else:
            await self._each(self._black_out)
            await asyncio.sleep(fault.seconds)
            await self._each(self._start_if_down)
        applied.ended = now()

    async def _each(self, work: Callable[[Replica], Awaitable[None]]) -> None:
        await asyncio.gather(*(work(replica) for replica in self._world.everybody))

    async def _black_out(self, replica: Replica) -> None:
        await replica.kill()

    async def _start_if_down(self, replica: Replica) -> None:
        async with self._busy[replica.number]:
            if not replica.running:
                await self._start(replica)


def _partition(link: TcpFaultProxy) -> None:
    link.refuse()
    link.reset()


async def _for_a_while(fault: Fault, link: TcpFaultProxy, begin: Callable[[TcpFaultProxy], None]) -> None:
    begin(link)
    await asyncio.sleep(fault.seconds)
    await link.heal()
