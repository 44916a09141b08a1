"""Load on a server, by the C client, and what the server used meanwhile."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.gateway import API_KEY
from bench.machine import pinned
from bench.servers import Server
from bench.yardsticks import Programs, Stub


@dataclass(frozen=True)
class Load:
    """So many turns, `streams` at a time, each of `tokens` tokens with `delay_ms` between them."""

    streams: int
    turns: int
    tokens: int
    delay_ms: float = 0
    ramp_ms: float = 0
    """The first turns are spread over this time."""
    seconds: float = 120
    """What is not finished after this time is cut off, and counts as lost."""
    query: str = ""
    """For the embedded agent, which has answers of its own. Empty: what the stub understands."""
    hold: bool = False
    """End after `seconds`, whatever is open: nothing of it counts as lost."""

    @property
    def stream_seconds(self) -> float:
        """How long a stream lasts that is on time."""
        return self.tokens * self.delay_ms / 1000


class Histogram(msgspec.Struct):
    """Microseconds."""

    count: int
    mean: float
    p50: float
    p99: float
    max: float


class Outcome(msgspec.Struct):
    """What the client saw."""

    turns: int
    failed: int
    incomplete: int
    unfinished: int
    out_of_order: int
    repeated: int
    tokens: int
    frames: int
    reconnects: int
    all_open_s: float
    """When the last of the first streams had its head; 0 when one had none."""
    turns_per_s: float
    tokens_per_s: float
    first_token_us: Histogram
    token_latency_us: Histogram
    turn_us: Histogram
    resume_us: Histogram
    """From the loss of a stream to the next token."""
    first_error: str
    cpu_s: float = 0
    """CPU seconds of the server."""

    @property
    def lost(self) -> int:
        """Turns that did not end with all their tokens, each once, in order and in time."""
        return self.failed + self.incomplete + self.unfinished + self.out_of_order + self.repeated

    @property
    def cpu_us_per_token(self) -> float:
        """CPU of the server, its work for whole turns included."""
        return self.cpu_s * 1e6 / max(self.tokens, 1)

    @property
    def cpu_ms_per_turn(self) -> float:
        """The same per turn."""
        return self.cpu_s * 1e3 / max(self.turns, 1)


class Client:
    """Plays loads, on its own cores."""

    def __init__(self, programs: Programs, cores: frozenset[int]) -> None:
        self._program = programs.sseload
        self._cores = cores

    def start(self, server: Server, load: Load) -> subprocess.Popen[bytes]:
        """Begin to play a load; `outcome` waits for its end."""
        wanted = {
            "-c": load.streams, "-r": load.turns, "-n": load.tokens, "-d": load.delay_ms, "-R": load.ramp_ms,
            "-t": load.seconds,
        }  # fmt: skip
        options = [text for option, value in wanted.items() for text in (option, f"{value:.10g}")]
        options += ["-q", load.query] if load.query else []
        options += ["-H"] if load.hold else []
        # nginx passes the run protocol on; all others speak the API of the gateway.
        return self._run("-u", server.url, "-f", "runs" if server.name == "nginx" else "chat", *options)

    def follow(
        self, servers: Sequence[Server], paths: Path, load: Load, readers: int
    ) -> subprocess.Popen[bytes]:
        """Begin to read running turns as EventSource does, at the first server that is there.

        `paths` has a line for each turn; `load` says how the turns were begun.
        """
        bases = [text for server in servers for text in ("-u", server.url)]
        counts = ["-c", str(readers), "-r", str(readers), "-n", str(load.tokens)]
        times = ["-R", f"{load.ramp_ms:g}", "-t", f"{load.seconds:g}"]
        return self._run(*bases, "-f", "events", "-L", str(paths), *counts, *times)

    def _run(self, *options: str) -> subprocess.Popen[bytes]:
        command = [str(self._program), "-h", f"Authorization: Bearer {API_KEY}", *options]
        with pinned(self._cores):
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def play(self, server: Server, load: Load) -> Outcome:
        """Play a load to its end."""
        before = server.cpu()
        seen = outcome(self.start(server, load))
        server.require_running()
        seen.cpu_s = server.cpu() - before
        return seen

    def play_steadily(self, server: Server, stub: Stub, load: Load) -> tuple[Outcome, float]:
        """The same, and the CPU microseconds per token in the middle, when no turn begins or ends."""
        before = server.cpu()
        playing = self.start(server, load)
        margin = load.stream_seconds / 10
        time.sleep(load.ramp_ms / 1000 + margin)
        middle, events = server.cpu(), stub.stats()["events"]
        time.sleep(max(load.stream_seconds - load.ramp_ms / 1000 - 2 * margin, margin))
        used, sent = server.cpu() - middle, stub.stats()["events"] - events
        seen = outcome(playing)
        server.require_running()
        seen.cpu_s = server.cpu() - before
        return seen, used * 1e6 / max(sent, 1)


def outcome(playing: subprocess.Popen[bytes]) -> Outcome:
    """Wait for the end of a load."""
    written, _ = playing.communicate()
    if not written:
        raise RuntimeError(f"the load client ended with status {playing.returncode}")
    seen = msgspec.json.decode(written, type=Outcome)
    if seen.first_error:
        print(f"the first that failed: {seen.first_error}", file=sys.stderr)
    return seen
