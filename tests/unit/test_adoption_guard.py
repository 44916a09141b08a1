"""When a process may adopt turns whose leases have expired (docs/design/durability.md)."""

import asyncio

import pytest
from typing_extensions import override

from agent_gateway.turns.maintenance import AdoptionGuard

LEASE = 8.0


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time the test sets."""

    now = 100.0

    @override
    def time(self) -> float:
        return self.now


def reaches(clock: Clock, guard: AdoptionGuard, seconds: int) -> None:
    """The database answers once a second."""
    for _ in range(seconds):
        clock.now += 1
        guard.reached()


@pytest.mark.parametrize(("pause", "outage"), [(3.0, False), (5.0, True)])
def test_after_an_outage_expired_leases_count_only_after_one_lease(*, pause: float, outage: bool) -> None:
    """An outage is longer than half a lease: its end leaves the owners one lease to renew theirs."""

    async def story() -> None:
        guard = AdoptionGuard(LEASE, sweep_seconds=0.8)
        reaches(clock, guard, 7)
        assert not guard.may_adopt_expired, "it has just started"
        reaches(clock, guard, 1)
        assert guard.may_adopt_expired
        clock.now += pause
        assert guard.may_adopt_expired is not outage
        guard.reached()
        assert guard.may_adopt_expired is not outage
        reaches(clock, guard, 7)
        assert guard.may_adopt_expired is not outage
        reaches(clock, guard, 1)
        assert guard.may_adopt_expired

    clock = Clock()
    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        runner.run(story())


def test_a_process_is_steady_while_its_heartbeats_get_through() -> None:
    async def story() -> None:
        guard = AdoptionGuard(LEASE, sweep_seconds=0.8)
        assert guard.steady
        clock.now += LEASE / 2
        assert guard.steady, "the next heartbeat is not overdue"
        guard.missed()
        assert not guard.steady
        guard.renewed()
        assert guard.steady
        clock.now += LEASE * 0.7
        assert not guard.steady, "no heartbeat for more than two thirds of a lease"

    clock = Clock()
    with asyncio.Runner(loop_factory=lambda: clock) as runner:
        runner.run(story())
