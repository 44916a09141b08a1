"""What it costs to be observed: with metrics and without, with lines in the log and without."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from statistics import median
from typing import Final

from bench.bench import Bench
from bench.gateway import Gateway
from bench.load import Load
from bench.scenario import LOST, OURS, Goal, Metric, Scenario
from bench.servers import Server

SERVERS: Final = 8
"""How many servers of each kind are measured in a round: two processes of the same code differ by more than
what is looked for here, as their memory lies differently."""
SLICES: Final = 3
"""How often each of them is measured, in turn: the machine changes from second to second."""
VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "all": {},
    "metrics": {"AGENT_GATEWAY_METRICS": "false"},
    "lines": {"AGENT_GATEWAY_LOG_LEVEL": "warning"},
}
"""What is switched off, and how."""


def _observed(bench: Bench, system: str) -> Mapping[str, float]:
    seen = [_use_of_servers(bench, system) for _ in range(bench.size(SERVERS, 1))]
    figures = {"lost": float(sum(lost for _, lost in seen))}
    for name in ("metrics", "lines"):
        for what in ("turn", "token"):
            figures[f"{name}_{what}"] = median(used["all", what] / used[name, what] for used, _ in seen)
    return figures


def _use_of_servers(bench: Bench, system: str) -> tuple[Mapping[tuple[str, str], float], int]:
    """What turns and tokens use of the CPU in each variant, with new servers; and how many were lost."""
    used: dict[tuple[str, str], float] = defaultdict(float)
    lost = 0
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(_server(bench, system, environ)) for name, environ in VARIANTS.items()
        }
        names = list(servers)
        for name in names:
            bench.warm(servers[name])
        for _ in range(bench.size(SLICES, 1)):
            for name in names:
                one = bench.client.play(servers[name], Load(bench.size(64, 8), bench.size(600, 64), 1))
                many = bench.client.play(
                    servers[name], Load(bench.size(64, 8), bench.size(192, 16), bench.size(200, 20))
                )
                used[name, "turn"] += one.cpu_ms_per_turn
                used[name, "token"] += many.cpu_us_per_token
                lost += one.lost + many.lost
            # Who comes first has colder caches.
            names.append(names.pop(0))
    return used, lost


def _server(bench: Bench, system: str, environ: Mapping[str, str]) -> AbstractContextManager[Server]:
    if bench.smoke:
        # There is no time for others.
        return nullcontext(bench.system(system))
    url = bench.database_url(system)
    return Gateway(
        system,
        bench.cores.server,
        bench.folder,
        backend_url=bench.stub.url,
        database_url=url,
        environ=environ,
    )


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
