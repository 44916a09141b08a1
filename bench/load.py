"""Load on a server, by the C client, and what the server used meanwhile."""

import subprocess
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from bench.gateway import API_KEY
from bench.machine import pinned
from bench.servers import Server
from bench.yardsticks import Programs, Stub

FACES: Final = {"nginx": "runs", "natural": "chat"}
"""nginx passes the run protocol on; all others, by default, speak the API of the gateway."""


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
    tokens: int
    frames: int
    wall_s: float
    turns_per_s: float
    tokens_per_s: float
    first_token_us: Histogram
    token_latency_us: Histogram
    turn_us: Histogram
    first_error: str
    cpu_s: float = 0
    """CPU seconds of the server."""

    @property
    def lost(self) -> int:
        """Turns that did not end with all their tokens, in order and in time."""
        return self.failed + self.incomplete + self.unfinished + self.out_of_order

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

    def start(self, server: Server, load: Load, *more: str) -> subprocess.Popen[bytes]:
        """Begin to play a load; `outcome` waits for its end."""
        wanted = {
            "-c": load.streams, "-r": load.turns, "-n": load.tokens, "-d": load.delay_ms, "-R": load.ramp_ms,
            "-t": load.seconds,
        }  # fmt: skip
        options = [text for option, value in wanted.items() for text in (option, f"{value:g}")]
        command = [str(self._program), "-u", server.url, "-f", FACES.get(server.name, "chat")]
        command += ["-h", f"Authorization: Bearer {API_KEY}", *options, *more]
        with pinned(self._cores):
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def play(self, server: Server, load: Load) -> Outcome:
        """Play a load to its end."""
        before = server.cpu()
        seen = outcome(self.start(server, load))
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
        seen.cpu_s = server.cpu() - before
        return seen, used * 1e6 / max(sent, 1)


def outcome(playing: subprocess.Popen[bytes]) -> Outcome:
    """Wait for the end of a load."""
    written, _ = playing.communicate()
    if not written:
        raise RuntimeError(f"the load client ended with status {playing.returncode}")
    return msgspec.json.decode(written, type=Outcome)
