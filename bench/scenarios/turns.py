"""What a turn costs beside its tokens."""

from collections.abc import Mapping
from typing import Final

from bench.bench import Bench
from bench.load import Load
from bench.scenario import Goal, Metric, Scenario


def _turns(bench: Bench, system: str) -> Mapping[str, float]:
    # nginx answers 20,000 in a second.
    turns = bench.size(15_000 if system == "nginx" else 1500, 64)
    seen = bench.client.play(bench.system(system), Load(bench.size(64, 8), turns, 1))
    return {
        "turns_per_s": seen.turns_per_s,
        "cpu_ms_per_turn": seen.cpu_ms_per_turn,
        "p50_ms": seen.turn_us.p50 / 1e3,
        "p99_ms": seen.turn_us.p99 / 1e3,
        "lost": seen.lost,
    }


TURNS: Final = Scenario(
    "turns",
    "Turns of one token, 64 at once",
    {
        "turns_per_s": Metric(
            "turns per second",
            "",
            goals=(Goal(at_least=800, system="sqlite"), Goal(at_least=1000, system="postgres")),
        ),
        "cpu_ms_per_turn": Metric(
            "CPU per turn in the server process",
            "ms",
            2,
            (Goal(at_most=1.2, system="sqlite"), Goal(at_most=1, system="postgres")),
        ),
        "p50_ms": Metric("duration of a turn, median", "ms", 1),
        "p99_ms": Metric("duration of a turn, p99", "ms", 1),
        "lost": Metric("turns that were not served", "", 0, (Goal(at_most=0),)),
    },
    _turns,
)
