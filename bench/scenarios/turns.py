"""What a turn costs beside its tokens: with each database, and with more workers."""

from collections.abc import Mapping
from typing import Final

from bench.bench import Bench
from bench.gateway import Gateway
from bench.load import Load
from bench.scenario import LOST, Goal, Metric, Scenario


def one_token(bench: Bench, system: str) -> Load:
    """Turns of one token, 64 at once."""
    # nginx answers 20,000 in a second.
    return Load(bench.size(64, 8), bench.size(15_000 if system == "nginx" else 1500, 64), 1)


def _turns(bench: Bench, system: str) -> Mapping[str, float]:
    seen = bench.client.play(bench.system(system), one_token(bench, system))
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
        "lost": LOST,
    },
    _turns,
)


def _workers(bench: Bench, system: str) -> Mapping[str, float]:
    one = bench.system(system)

    def start() -> Gateway:
        return Gateway(
            system,
            bench.cores.server | bench.cores.second_server,
            bench.folder,
            backend_url=bench.stub.url,
            database_url=bench.database_url(system),
            workers=2,
        )

    two = bench.own("two workers", start)
    streams, turns, tokens = bench.size((128, 2000, 200), (8, 64, 20))
    turns_one, turns_two = (bench.client.play(server, Load(streams, turns, 1)) for server in (one, two))
    before = two.cpu_of_workers()
    tokens_one, tokens_two = (
        bench.client.play(server, Load(streams, turns // 4, tokens)) for server in (one, two)
    )
    used = [after - then for after, then in zip(two.cpu_of_workers(), before, strict=True)]
    return {
        "turns_ratio": turns_two.turns_per_s / turns_one.turns_per_s,
        "tokens_ratio": tokens_two.tokens_per_s / tokens_one.tokens_per_s,
        "share_percent": 100 * max(used) / max(sum(used), 0.01),
        "lost": turns_two.lost + tokens_two.lost,
    }


WORKERS: Final = Scenario(
    "workers",
    "`serve --workers 2` on two cores, beside one process on one core",
    {
        "turns_ratio": Metric("turns per second", "×", 2, (Goal(at_least=1.7, system="postgres"),)),
        "tokens_ratio": Metric("tokens per second", "×", 2, (Goal(at_least=1.7, system="postgres"),)),
        "share_percent": Metric("share of the work that the busier worker had", "%"),
        "lost": LOST,
    },
    _workers,
    ("postgres",),
)
