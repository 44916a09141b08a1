"""Many readers of few turns: fan-out, and the storm when the process that served them is gone."""

import json
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.bench import Bench
from bench.gateway import API_KEY
from bench.load import Load, outcome
from bench.scenario import LOST, OURS, Goal, Metric, Scenario
from bench.servers import Server, wait_until


def begun(server: Server, load: Load, paths: Path) -> None:
    """Begin turns in the background, and write the paths of their event streams, one a line."""
    urls = []
    for number in range(load.turns):
        body = {
            "query": f"[[n={load.tokens} d={load.delay_ms:g}]]",
            "user": f"reader-{number}",
            "response_mode": "background",
        }
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.url}/chat-messages", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            urls.append(str(json.load(response)["events_url"]))
    paths.write_text("".join(f"{url}\n" for url in urls))


def _fan_out(bench: Bench, system: str) -> Mapping[str, float]:
    readers, tokens, ramp = bench.size((1000, 200, 2000), (20, 20, 100))
    server = bench.system(system)
    load = Load(1, 1, tokens, delay_ms=50, ramp_ms=ramp, seconds=40)
    paths = bench.folder / f"fan-out-{system}"
    begun(server, load, paths)
    before = server.cpu()
    seen = outcome(bench.client.follow([server], paths, load, readers))
    return {
        "p50_ms": seen.token_latency_us.p50 / 1e3,
        "p99_ms": seen.token_latency_us.p99 / 1e3,
        "cpu_us_per_token": (server.cpu() - before) * 1e6 / max(seen.tokens, 1),
        "lost": seen.lost,
    }


FAN_OUT: Final = Scenario(
    "fanout",
    "Fan-out: one turn of 20 tokens per second, 1,000 readers, who come within 2 s",
    {
        "p50_ms": Metric("latency of a token, median", "ms", 1),
        "p99_ms": Metric("latency of a token, p99", "ms", 1, (Goal(at_most=100),)),
        "cpu_us_per_token": Metric("CPU per token and reader", "µs", 1),
        "lost": LOST,
    },
    _fan_out,
    OURS,
)


def _storm(bench: Bench, system: str) -> Mapping[str, float]:
    turns, readers, tokens, open_seconds = bench.size((200, 2000, 125, 6.0), (4, 20, 18, 0.5))
    url = bench.database_url(system)
    load = Load(turns, turns, tokens, delay_ms=200, ramp_ms=open_seconds * 300, seconds=tokens / 5 + 40)
    paths = bench.folder / "storm"
    processes = [bench.gateway(system, url) for _ in range(2)]
    with processes[0] as first, processes[1] as second:
        begun(first, load, paths)
        # A turn whose run is not yet known cannot be continued (docs/guarantees.md).
        wait_until(lambda: bench.stub.stats()["streams_open"] == turns, 30, "all runs are read")
        playing = bench.client.follow([first, second], paths, load, readers)
        time.sleep(open_seconds)
        before = bench.stub.stats()["streams_opened"]
        first.kill()
        seen = outcome(playing)
        bench.settle()
        opened = bench.stub.stats()["streams_opened"] - before
    return {
        "resumed": seen.resume_us.count,
        "p50_s": seen.resume_us.p50 / 1e6,
        "longest_s": seen.resume_us.max / 1e6,
        "streams_per_turn": opened / turns,
        "lost": seen.lost,
    }


STORM: Final = Scenario(
    "storm",
    "Storm: 2,000 readers of 200 turns of 5 tokens per second, and the process that serves them is killed",
    {
        "resumed": Metric("readers that the other process went on serving"),
        "p50_s": Metric("from the kill to the next token, median", "s", 2),
        "longest_s": Metric("from the kill to the next token, longest", "s", 2, (Goal(at_most=3),)),
        "streams_per_turn": Metric("further streams at the backend, per turn", "", 2, (Goal(at_most=1),)),
        "lost": LOST,
    },
    _storm,
    ("postgres",),
)
