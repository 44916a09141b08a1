"""What it costs to be observed: with metrics and without, with lines in the log and without."""

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Final

from bench.bench import Bench
from bench.gateway import Gateway
from bench.load import Load
from bench.scenario import LOST, OURS, Goal, Metric, Scenario
from bench.servers import Server

REPEATS: Final = 6
"""How often each server is measured in a round, in turn: the machine changes from minute to minute."""
NOTHING: Final[Mapping[str, str]] = {}
VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "metrics": {"AGENT_GATEWAY_METRICS": "false"},
    "lines": {"AGENT_GATEWAY_LOG_LEVEL": "warning"},
}
"""What is switched off, and how."""


def _observed(bench: Bench, system: str) -> Mapping[str, float]:
    def without(environ: Mapping[str, str]) -> Gateway:
        url = bench.database_url(system)
        return Gateway(
            system,
            bench.cores.server,
            bench.folder,
            backend_url=bench.stub.url,
            database_url=url,
            environ=environ,
        )

    servers: dict[str, Server] = {}
    for name, environ in {"all": NOTHING, **VARIANTS}.items():
        # A smoke run has no time for other servers.
        starting = partial(without, environ)
        servers[name] = bench.system(system) if bench.smoke else bench.own(f"{system}-{name}", starting)
    lost = 0.0
    turns: dict[str, list[float]] = {name: [] for name in servers}
    tokens: dict[str, list[float]] = {name: [] for name in servers}
    names = list(servers)
    for _ in range(bench.size(REPEATS, 1)):
        for name in names:
            lost += _measure(bench, servers[name], turns[name], tokens[name])
        # Who comes first has colder caches.
        names.append(names.pop(0))
    figures = {"lost": lost}
    for name in VARIANTS:
        for what, measured in (("turn", turns), ("token", tokens)):
            pairs = zip(measured["all"], measured[name], strict=True)
            figures[f"{name}_{what}"] = median(with_it / without_it for with_it, without_it in pairs)
    return figures


def _measure(bench: Bench, server: Server, turns: list[float], tokens: list[float]) -> float:
    one = bench.client.play(server, Load(bench.size(64, 8), bench.size(1000, 64), 1))
    many = bench.client.play(server, Load(bench.size(64, 8), bench.size(300, 16), bench.size(200, 20)))
    turns.append(one.cpu_ms_per_turn)
    tokens.append(many.cpu_us_per_token)
    return one.lost + many.lost


OBSERVED: Final = Scenario(
    "observed",
    "Metrics, and a line for each request and turn, beside the same without them",
    {
        "metrics_turn": Metric("CPU per turn with metrics", "×", 3, (Goal(at_most=1.03),)),
        "metrics_token": Metric("CPU per token with metrics, saturated", "×", 3, (Goal(at_most=1.01),)),
        "lines_turn": Metric("CPU per turn with lines", "×", 3),
        "lines_token": Metric("CPU per token with lines, saturated", "×", 3),
        "lost": LOST,
    },
    _observed,
    OURS,
)
