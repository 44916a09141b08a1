"""Three fixed seeds of the chaos suite; any others, and longer ones, by hand with dev/chaos."""

from collections.abc import Iterator

import pytest

from tests.chaos.faults import ALL_FAULTS
from tests.chaos.postgres import ChaosPostgres
from tests.chaos.run import run_seed
from tests.chaos.world import Config

pytestmark = pytest.mark.slow

SECONDS = 10.0


@pytest.fixture(scope="module")
def chaos_postgres() -> Iterator[ChaosPostgres]:
    with ChaosPostgres() as postgres:
        yield postgres


@pytest.mark.parametrize("seed", [9, 11, 24], ids=lambda seed: f"seed{seed}")
def test_no_turn_is_lost_doubled_or_stuck(seed: int, chaos_postgres: ChaosPostgres) -> None:
    config = Config(seed=seed, seconds=SECONDS, faults=ALL_FAULTS)
    report = run_seed(config, chaos_postgres)
    assert not report.violations, report.failure()
    assert report.counts["turns"] >= 20, "the world was too slow to prove anything"


@pytest.mark.parametrize("seed", [4, 8], ids=lambda seed: f"seed{seed}")
def test_no_turn_of_the_embedded_agent_is_lost_doubled_or_stuck(
    seed: int, chaos_postgres: ChaosPostgres
) -> None:
    """Two processes of the agent log their runs in the gateways' database, and are broken like them (R19)."""
    config = Config(seed=seed, seconds=SECONDS, agents=2, faults=ALL_FAULTS)
    report = run_seed(config, chaos_postgres)
    assert not report.violations, report.failure()
    assert report.counts["turns"] >= 20, "the world was too slow to prove anything"
