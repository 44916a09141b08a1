"""What must not grow: a token's cost with the streams beside it, a turn's with the rows, a long turn's."""

import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from bench.bench import Bench
from bench.fill import fill
from bench.gateway import Gateway
from bench.load import Load, outcome
from bench.scenario import LOST, OURS, Goal, Metric, Scenario
from bench.scenarios.turns import one_token
from bench.servers import Server, comes_true

WINDOW_SECONDS: Final = 5.0


def _cpu_us_per_token(bench: Bench, system: str, streams: int, delay_ms: float, lasting: float) -> float:
    """In the time when all these streams are open and no turn begins or ends."""
    server, stub = bench.system(system), bench.stub
    load = Load(streams, streams, int(lasting * 1000 / delay_ms), delay_ms, seconds=lasting + 60)
    playing = bench.client.start(server, load)
    # A gateway that is too slow never has all of them open: then its turns count, too.
    comes_true(lambda: stub.stats()["streams_open"] >= streams, lasting / 2)
    time.sleep(bench.size(0.5, 0.0))
    used, events = server.cpu(), stub.stats()["events"]
    time.sleep(bench.size(WINDOW_SECONDS, 0.2))
    used, events = server.cpu() - used, stub.stats()["events"] - events
    outcome(playing)
    return used * 1e6 / max(events, 1)


def _streams(bench: Bench, system: str) -> Mapping[str, float]:
    # 4,000 tokens per second in both cases.
    few_streams, many_streams, lasting = bench.size((100, 2000, (7.0, 16.0)), (4, 16, (0.8, 1.2)))
    few = _cpu_us_per_token(bench, system, few_streams, 25, lasting[0])
    many = _cpu_us_per_token(bench, system, many_streams, 25 * many_streams / few_streams, lasting[1])
    return {"few_us": few, "many_us": many, "ratio": many / few if few else 0.0}


STREAMS: Final = Scenario(
    "streams",
    "CPU per token with few and with many streams, 4,000 tokens per second in both cases",
    {
        "few_us": Metric("100 streams", "µs"),
        "many_us": Metric("2,000 streams", "µs"),
        "ratio": Metric("2,000 in relation to 100", "×", 2, (Goal(at_most=1.3),)),
    },
    _streams,
    ("nginx", *OURS),
)


def _rows(bench: Bench, system: str) -> Mapping[str, float]:
    load = one_token(bench, system)
    few = bench.client.play(bench.system(system), load)
    many = bench.client.play(_filled(bench, system), load)
    return {
        "few_ms": few.cpu_ms_per_turn,
        "many_ms": many.cpu_ms_per_turn,
        "ratio": many.cpu_ms_per_turn / few.cpu_ms_per_turn,
        "turns_ratio": many.turns_per_s / few.turns_per_s,
        "lost": few.lost + many.lost,
    }


def _filled(bench: Bench, system: str) -> Server:
    server = bench.own_system(system)
    assert isinstance(server, Gateway)
    fill(bench.size(1_000_000, 1000), server.database)
    return server


ROWS: Final = Scenario(
    "rows",
    "Turns of one token with 1,000,000 messages in the database",
    {
        "few_ms": Metric("CPU per turn with only those of this run", "ms", 2),
        "many_ms": Metric("CPU per turn with 1,000,000 more", "ms", 2),
        "ratio": Metric("CPU in relation", "×", 2, (Goal(at_most=1.1),)),
        "turns_ratio": Metric("turns per second in relation", "×", 2),
        "lost": LOST,
    },
    _rows,
    OURS,
    most_rounds=1,
)


def _long(bench: Bench, system: str) -> Mapping[str, float]:
    server, stub = bench.system(system), bench.stub
    streams, tokens = bench.size((50, 1_000_000), (4, 20_000))
    beside = Load(streams, streams, bench.size(120, 20), delay_ms=25)
    alone = bench.client.play(server, beside)
    base, began = server.memory(), stub.stats()["events"]
    long = bench.client.start(server, Load(1, 1, tokens, seconds=300))
    quarters: list[float] = [time.perf_counter()]
    others = bench.client.start(server, beside)
    while len(quarters) <= 4:
        if stub.stats()["events"] - began >= len(quarters) * tokens / 4:
            quarters.append(time.perf_counter())
        elif long.poll() is not None:
            break
        time.sleep(0.01)
    grown = server.memory() - base
    seen, told = outcome(others), outcome(long)
    spent = [after - before for before, after in pairwise(quarters)]
    return {
        "alone_p99_ms": alone.token_latency_us.p99 / 1e3,
        "beside_p99_ms": seen.token_latency_us.p99 / 1e3,
        "beside_max_ms": seen.token_latency_us.max / 1e3,
        "tokens_per_s": told.tokens_per_s,
        "slower": spent[-1] / spent[0],
        "bytes_per_token": grown / tokens,
        "lost": seen.lost + told.lost,
    }


LONG: Final = Scenario(
    "long",
    "A turn of 1,000,000 tokens beside 50 streams of one token per 25 ms",
    {
        "alone_p99_ms": Metric("the others without it: latency of a token, p99", "ms", 1),
        "beside_p99_ms": Metric(
            "the others beside it: latency of a token, p99", "ms", 1, (Goal(at_most=100),)
        ),
        "beside_max_ms": Metric("the others beside it: longest latency", "ms", 1),
        "tokens_per_s": Metric("tokens per second of the long turn"),
        "slower": Metric("time for its last quarter, in relation to its first", "×", 2, (Goal(at_most=1.3),)),
        "bytes_per_token": Metric("memory per token (17 bytes of text)", "bytes"),
        "lost": LOST,
    },
    _long,
    OURS,
)
