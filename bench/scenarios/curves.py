"""What the plots show: how a figure changes with the number of streams, and of turns at once."""

from collections.abc import Mapping
from typing import Final

from bench.bench import Bench
from bench.load import Load
from bench.scenario import Metric, Plot, Scenario

STREAMS: Final = (10, 100, 250, 500, 1000, 1500, 2000)
AT_ONCE: Final = (1, 4, 16, 64, 256)


def _p99(bench: Bench, system: str) -> Mapping[str, float]:
    server, tokens = bench.system(system), bench.size(80, 4)
    figures = {}
    for streams in STREAMS[: bench.size(None, 2)]:
        seen = bench.client.play(server, Load(streams, streams, tokens, 50, ramp_ms=streams, seconds=15))
        if seen.lost:
            # More than it carries: its line ends here.
            break
        figures[str(streams)] = seen.token_latency_us.p99 / 1e3
        bench.settle()
    return figures


P99: Final = Scenario(
    "p99",
    "Latency of a token with so many streams of 20 tokens per second",
    {str(streams): Metric(f"p99 at {streams:,} streams", "ms", 1) for streams in STREAMS},
    _p99,
    most_rounds=3,
    plot=Plot("streams of 20 tokens per second", "latency of a token, p99, ms"),
)


def _rate(bench: Bench, system: str) -> Mapping[str, float]:
    server = bench.system(system)
    figures = {}
    for at_once in AT_ONCE[: bench.size(None, 2)]:
        # Some seconds of each system.
        turns = bench.size(min(max(at_once, 4) * 10, 1000) * (10 if system == "nginx" else 1), 8)
        seen = bench.client.play(server, Load(at_once, turns, 1))
        if seen.lost:
            break
        figures[str(at_once)] = seen.turns_per_s
    return figures


RATE: Final = Scenario(
    "rate",
    "Turns of one token, so many at once",
    {str(at_once): Metric(f"turns per second, {at_once} at once") for at_once in AT_ONCE},
    _rate,
    most_rounds=3,
    plot=Plot("turns at once", "turns per second"),
)
