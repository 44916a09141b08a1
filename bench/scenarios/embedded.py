"""What the embedded agent costs, without a model: it runs in the gateway's process."""

from collections.abc import Mapping
from typing import Final

from bench.bench import Bench
from bench.gateway import Gateway
from bench.load import Load
from bench.scenario import LOST, Metric, Scenario

SHORT, LONG = "count to 10", "count to 400"


def _embedded(bench: Bench, system: str) -> Mapping[str, float]:
    server = bench.own("embedded", lambda: Gateway("embedded", bench.cores.server, bench.folder))
    short, long = bench.size((50, 50), (4, 4))
    bench.client.play(server, Load(short, short, 0, query=SHORT))  # warms
    turns = bench.client.play(server, Load(short, 4 * short, 0, query=SHORT))
    tokens = bench.client.play(server, Load(long, long, 0, query=LONG if not bench.smoke else "count to 30"))
    # Two equations: what both turns cost alike, and what each further event costs.
    events = tokens.frames / tokens.turns - turns.frames / turns.turns
    per_event = (tokens.cpu_s / tokens.turns - turns.cpu_s / turns.turns) / events
    per_turn = turns.cpu_s / turns.turns - per_event * turns.frames / turns.turns
    return {"us_per_event": per_event * 1e6, "ms_per_turn": per_turn * 1e3, "lost": turns.lost + tokens.lost}


EMBEDDED: Final = Scenario(
    "embedded",
    "The built-in demo agent: its scripted model and the agent framework are part of the cost",
    {
        "us_per_event": Metric("CPU per event", "µs"),
        "ms_per_turn": Metric("CPU per turn beside its events", "ms", 2),
        "lost": LOST,
    },
    _embedded,
    ("sqlite",),
)
