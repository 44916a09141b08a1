"""What open streams and ended turns leave in memory."""

import time
from collections.abc import Mapping
from typing import Final

from bench.bench import Bench
from bench.load import Load, outcome
from bench.scenario import OURS, Goal, Metric, Scenario
from bench.servers import Server

RETENTION_SECONDS: Final = 65.0
"""A gateway keeps the logs of ended turns for a minute, for readers that come back."""


def _memory(bench: Bench, system: str) -> Mapping[str, float]:
    streams = bench.size(2000, 20)
    server = bench.own_system(system)
    base = _at_rest(bench, server)
    tokens, ramp, seconds = bench.size((12, 3000, 8), (2, 100, 1))
    load = Load(streams, streams, tokens, 1000, ramp, seconds, hold=True)
    playing = bench.client.start(server, load)
    highest = base
    while playing.poll() is None:
        highest = max(highest, server.memory())
        time.sleep(0.1)
    seen = outcome(playing)
    bench.settle()
    after = _at_rest(bench, server)
    turns = bench.size(20_000, 64)
    bench.client.play(server, Load(64, turns, 1, seconds=600))
    return {
        "kib_per_stream": (highest - base) / streams / 2**10,
        # Not all of them: as long as it was waited for.
        "all_open_s": seen.all_open_s or load.seconds,
        "mib_afterwards": (after - base) / 2**20,
        "mib_growth": (_at_rest(bench, server) - after) / 2**20,
    }


def _at_rest(bench: Bench, server: Server) -> int:
    """Memory when nobody is there and nothing is kept for anybody."""
    if server.name != "nginx" and not bench.smoke:
        time.sleep(RETENTION_SECONDS)
    return server.memory()


MEMORY: Final = Scenario(
    "memory",
    "2,000 open streams",
    {
        "kib_per_stream": Metric("memory per open stream", "KiB", 1, (Goal(at_most=40),)),
        "all_open_s": Metric("until all were open (they come within 3 s)", "s", 1, (Goal(at_most=5),)),
        "mib_afterwards": Metric("memory above the base, a minute after them", "MiB", 1, (Goal(at_most=8),)),
        "mib_growth": Metric("growth over 20,000 turns after that", "MiB", 1, (Goal(at_most=2),)),
    },
    _memory,
    ("nginx", *OURS),
    once=True,
)
