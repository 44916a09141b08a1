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
    streams, turns = bench.size((2000, 20_000), (20, 64))
    server = bench.own_system(system)
    base = server.memory()
    highest, all_open = _crowd(bench, server, streams)
    after = _at_rest(bench, server)
    again, _ = _crowd(bench, server, streams)
    served = []
    for _ in range(2):
        bench.client.play(server, Load(bench.size(64, 8), turns, 1, seconds=600))
        served.append(_at_rest(bench, server))
    return {
        "kib_per_stream": (highest - base) / streams / 2**10,
        "all_open_s": all_open,
        "mib_afterwards": (after - base) / 2**20,
        "mib_again": (again - highest) / 2**20,
        "mib_growth": (served[1] - served[0]) / 2**20,
    }


def _crowd(bench: Bench, server: Server, streams: int) -> tuple[int, float]:
    """Hold so many streams open: the most memory meanwhile, and the seconds until all were open."""
    delay, ramp, seconds = bench.size((1000, 3000, 8), (100, 100, 1))
    load = Load(streams, streams, 12, delay, ramp, seconds, hold=True)
    playing = bench.client.start(server, load)
    highest = 0
    while playing.poll() is None:
        highest = max(highest, server.memory())
        time.sleep(0.05)
    all_open = outcome(playing).all_open_s
    bench.settle()
    # Not all of them: as long as it was waited for.
    return highest, all_open or load.seconds


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
        "mib_again": Metric("how much more 2,000 others need after them", "MiB", 1, (Goal(at_most=4),)),
        "mib_growth": Metric("growth over 20,000 turns, after 20,000", "MiB", 1, (Goal(at_most=4),)),
    },
    _memory,
    ("nginx", *OURS),
    most_rounds=1,
)
