"""What a token costs: alone, when as many arrive as can be passed on, and beside many others."""

from collections.abc import Mapping
from typing import Final

from bench.bench import Bench
from bench.load import Load
from bench.probe import Probe
from bench.scenario import LOST, OURS, Goal, Metric, Scenario


def _lone(bench: Bench, system: str) -> Mapping[str, float]:
    streams, tokens, ramp = bench.size((100, 200, 1000), (5, 20, 100))
    load = Load(streams, streams, tokens, delay_ms=25, ramp_ms=ramp)
    seen, steady = bench.client.play_steadily(bench.system(system), bench.stub, load)
    return {
        "cpu_us_per_token": seen.cpu_us_per_token,
        "steady_us_per_token": steady,
        "p50_ms": seen.token_latency_us.p50 / 1e3,
        "p99_ms": seen.token_latency_us.p99 / 1e3,
        "lost": seen.lost,
    }


LONE: Final = Scenario(
    "lone",
    "One event at a time: 100 streams, one token per 25 ms, 200 tokens",
    {
        "cpu_us_per_token": Metric(
            "CPU per token, begin and end of its turn included",
            "µs",
            goals=(Goal(at_most=2.2, times="nginx"), Goal(at_most=0.4, times="natural")),
        ),
        "steady_us_per_token": Metric("CPU per token while no turn begins or ends", "µs"),
        "p50_ms": Metric("latency of a token, median", "ms", 2),
        "p99_ms": Metric("latency of a token, p99", "ms", 2, (Goal(at_most=1, above="nginx"),)),
        "lost": LOST,
    },
    _lone,
)


def _saturated(bench: Bench, system: str) -> Mapping[str, float]:
    turns = bench.size(1000, 64) if system != "natural" else bench.size(250, 32)
    seen = bench.client.play(bench.system(system), Load(bench.size(64, 8), turns, bench.size(200, 20)))
    return {
        "tokens_per_s": seen.tokens_per_s,
        "cpu_us_per_token": seen.cpu_us_per_token,
        "lost": seen.lost,
    }


SATURATED: Final = Scenario(
    "saturated",
    "Saturated: 64 streams, 200 tokens each, as fast as they are read",
    {
        "tokens_per_s": Metric(
            "tokens per second",
            goals=(Goal(at_least=0.9, times="nginx"), Goal(at_least=10, times="natural")),
        ),
        "cpu_us_per_token": Metric("CPU per token", "µs", 1),
        "lost": LOST,
    },
    _saturated,
)


def _crowd(bench: Bench, system: str) -> Mapping[str, float]:
    streams, tokens, ramp = bench.size((1000, 160, 2000), (20, 10, 100))
    server = bench.system(system)
    load = Load(streams, streams, tokens, delay_ms=50, ramp_ms=ramp, seconds=25)
    figures: dict[str, float] = {}
    if system in OURS:
        with Probe(f"{server.url}/readyz") as probe:
            seen = bench.client.play(server, load)
        figures = {"readyz_p99_ms": probe.p99_ms, "readyz_failed": probe.failed}
    else:
        seen = bench.client.play(server, load)
    return {
        "p50_ms": seen.token_latency_us.p50 / 1e3,
        "p99_ms": seen.token_latency_us.p99 / 1e3,
        "cpu_us_per_token": seen.cpu_us_per_token,
        **figures,
        "lost": seen.lost,
    }


CROWD: Final = Scenario(
    "crowd",
    "1,000 streams, 20 tokens per second each, for 8 s",
    {
        "p50_ms": Metric("latency of a token, median", "ms", 1),
        "p99_ms": Metric("latency of a token, p99", "ms", 1, (Goal(at_most=100),)),
        "cpu_us_per_token": Metric("CPU per token, begin and end of its turn included", "µs"),
        "readyz_p99_ms": Metric("`/readyz` meanwhile, p99", "ms", 1, (Goal(at_most=100),)),
        "readyz_failed": Metric("`/readyz` that were not 200", goals=(Goal(at_most=0),)),
        "lost": LOST,
    },
    _crowd,
)
