"""The metrics of a process, for Prometheus. Their names and labels are public (docs/metrics.md).

Labels have few values: routes, statuses, codes; never an id, an app or a user. What is counted at once is set
where it happens; `gauges.py` sets what can be looked up when somebody asks.

With several workers each writes its values to files in the folder that PROMETHEUS_MULTIPROC_DIR names. It has
to be set before this module is imported (cli/serving.py does that for its workers).
"""

import math
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

PREFIX: Final = "agent_gateway"
FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which several workers share their values."""
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Buckets of what a person waits for, up to the longest turns."""
SHORT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Buckets of what a machine waits for."""

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


class Labelled(Generic[Metric]):
    """A metric by its labels' values: each child is looked up once, as that costs more than to count."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *values: str) -> Metric:
        """The child with these values; the metric itself when it has no labels."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values) if values else self._metric
        return child  # type: ignore[no-any-return]


def _counter(name: str, text: str, *labels: str) -> Labelled[Counter]:
    return Labelled(Counter(f"{PREFIX}_{name}", text, labels))


def _seconds(name: str, text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Labelled[Histogram]:
    return Labelled(Histogram(f"{PREFIX}_{name}_seconds", text, labels, buckets=buckets))


def _gauge(name: str, text: str, *labels: str, mode: Any = "livesum") -> Labelled[Gauge]:
    return Labelled(Gauge(f"{PREFIX}_{name}", text, labels, multiprocess_mode=mode))


# When a series began is of no use here, and doubles what is sent.
disable_created_metrics()

# -- requests of clients -------------------------------------------------------------------------------

REQUESTS = _counter("http_requests_total", "HTTP requests that ended.", "method", "route", "status")
CLIENTS_CUT = Counter(
    f"{PREFIX}_clients_cut_total", "Connections that were cut because the client was too slow."
)
RESUMES = _counter(
    "resumes_total",
    "Readers that came back with a position: exact, replaced (whole text anew) or gone (no such turn).",
    "kind",
)

# -- turns ---------------------------------------------------------------------------------------------

TURNS_BEGUN = Counter(f"{PREFIX}_turns_begun_total", "Turns that this process began.")
TURNS_ENDED = _counter("turns_ended_total", "Turns whose end this process stored.", "outcome", "code")
TURN_SECONDS = _seconds("turn_duration", "From the begin of a turn to its end.", "outcome")
QUEUE_SECONDS = Histogram(f"{PREFIX}_turn_queue_seconds", "How long queued turns waited.", buckets=SECONDS)
FIRST_EVENT_SECONDS = _seconds(
    "turn_first_event",
    "To the first event of a turn: before its run was requested (gateway), and after that (backend).",
    "part",
)
GAP_SECONDS = Histogram(
    f"{PREFIX}_turn_chunk_gap_seconds",
    "Between two reads of a run that brought events, of one turn in eight.",
    buckets=SHORT_SECONDS,
)
STOP_SECONDS = Histogram(
    f"{PREFIX}_turn_stop_seconds", "From when its process knew of a stop to the end.", buckets=SECONDS
)
ADOPTED = _counter("turns_adopted_total", "Turns taken over: from the dead, or released.", "source")
RELEASED = Counter(f"{PREFIX}_turns_released_total", "Turns given up to other processes.")
FENCED = _counter(
    "fenced_writes_total", "Writes that changed nothing: another process has the turn.", "write"
)
TOKENS = _counter("tokens_total", "Tokens that backends reported.", "kind")

# -- the backend -----------------------------------------------------------------------------------------

BACKEND_CALLS = _counter("backend_calls_total", "Calls of the backend.", "call", "result")
BACKEND_RECONNECTS = Counter(
    f"{PREFIX}_backend_reconnects_total", "Event streams that were cut and opened again."
)

# -- the process -----------------------------------------------------------------------------------------

POOL_WAIT_SECONDS = Histogram(
    f"{PREFIX}_database_pool_wait_seconds",
    "How long those waited for a database connection who found none free.",
    buckets=SHORT_SECONDS,
)
LOOP_LAG_SECONDS = Histogram(
    f"{PREFIX}_event_loop_lag_seconds", "How late the event loop does what is due.", buckets=SHORT_SECONDS
)
BUILD = _gauge("build_info", "The version that runs.", "version", mode="livemax")

TURNS_ACTIVE = _gauge("turns_active", "Turns that this process drives.")
TURNS_FOLLOWED = _gauge("turns_followed", "Turns of other processes that are read here.")
TURNS_QUEUED = _gauge("turns_queued", "Turns in the database that wait behind another one.", mode="livemax")
QUEUED_AGE = _gauge("turns_queued_oldest_seconds", "Age of the oldest of them.", mode="livemax")
READERS_OPEN = _gauge("readers_open", "Readers of live turns.")
READERS_BEHIND = _gauge("readers_behind", "Those of them who do not take what there is.")
OUTBOX_ENTRIES = _gauge(
    "outbox_entries", "Work at the backend that is still to be done.", "kind", mode="livemax"
)
OUTBOX_AGE = _gauge("outbox_oldest_seconds", "Age of the oldest of it.", mode="livemax")
POOL_SIZE = _gauge("database_pool_size", "Connections that a pool may have.", "pool")
POOL_IN_USE = _gauge("database_pool_in_use", "Connections that are in use.", "pool")

# Prometheus does not see the increase of a series that begins with its first event. Alerts have to see these.
for _outcome in ("completed", "stopped"):
    TURNS_ENDED(_outcome, "")
for _source in ("dead", "released"):
    ADOPTED(_source)
for _write in ("arm", "running", "finish", "heartbeat"):
    FENCED(_write)

gaps: Final[list[float]] = []
"""Gaps of measured turns that are not counted yet: to count each at once would cost 24 times as much."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""All others are one, so that nobody makes up labels."""


def exposition(accept: str) -> tuple[bytes, str]:
    """All metrics as bytes, in the format that this header asks for, and their media type."""
    registry = REGISTRY
    if FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def count_request(method: str, route: str, status: int) -> None:
    """An HTTP request has ended."""
    REQUESTS(method if method in METHODS else "other", route, str(status)).inc()


def count_gaps() -> None:
    """Add `gaps` to their metric, all at once: the library can only add one at a time."""
    if not gaps:
        return
    taken = sorted(gaps)
    gaps.clear()
    GAP_SECONDS._sum.inc(sum(taken))  # noqa: SLF001 - so the version is pinned
    counted = 0
    for bucket, bound in zip(GAP_SECONDS._buckets, (*SHORT_SECONDS, math.inf), strict=True):  # noqa: SLF001
        within = bisect_right(taken, bound)
        if within > counted:
            bucket.inc(within - counted)
        counted = within


def is_on() -> bool:
    """Whether this process measures anything."""
    return not isinstance(GAP_SECONDS, _Nothing)


class _Nothing:
    """Stands in for every metric once they are switched off."""

    def __call__(self, *_: str) -> "_Nothing":
        return self

    def inc(self, _: float = 1) -> None:
        """Count nothing."""

    def set(self, _: float) -> None:
        """Set nothing."""

    def observe(self, _: float) -> None:
        """Observe nothing."""


def switch_off() -> None:
    """From now on this process measures nothing."""
    names = globals()
    for name, value in list(names.items()):
        if isinstance(value, (Labelled, Counter, Gauge, Histogram)):
            names[name] = _Nothing()
