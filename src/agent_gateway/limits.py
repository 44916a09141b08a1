"""The bounds of a process that no setting changes: seconds, bytes and counts.

`create_app` takes a `Limits`, and the composition root hands each part its group; `server_config` takes the
group of the server. Tests pass smaller or larger bounds that way. What an operator may change is in
`settings.py`; what an app may change is in its app file.
"""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Bounds of one turn, in seconds."""

    stop_seconds: float = 5.0
    """How long a stopped run may take to say how it ended (R9)."""
    final_read_seconds: float = 2.0
    """How long the final read of the run's log may take before the gateway makes an end itself (R8)."""
    cancel_seconds: float = 5.0
    """How long a request to cancel a run may take."""
    store_file_seconds: float = 8.0
    """How long the file store may be away before a turn ends without a file that its agent made."""
    read_files_seconds: float = 8.0
    """How long it may take to read all files that the model will see."""
    recheck_seconds: float = 10.0
    """Longest pause between two reads of the row of a turn that another process ends."""
    trusted_stream_seconds: float = 15.0
    """How lately a followed run must have said something for its stream to go on when the turn is adopted."""


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """Bounds of the live turns of a process."""

    keep_seconds: float = 60.0
    keep_bytes: int = 64 * 1024 * 1024
    """Logs of ended turns stay so long, or a little longer, and at most so large, for readers that are about
    to reconnect (R13)."""
    unread_seconds: float = 5.0
    """How long a turn without readers is followed."""
    abandon_seconds: float = 60.0
    max_abandoned: int = 500
    """How long the gateway tries to end turns whose begin was not acknowledged, and how many at once."""
    late_commit_seconds: float = 10.0
    """When it looks once more for such a turn that was not there: a statement may go on for so long."""


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """Bounds of a drain, in seconds."""

    together_seconds: float = 0.5
    """Within this time all processes that leave together have received their signal."""
    grace_seconds: float = 1.5
    """How much longer than allowed a drain may take when the database cannot be reached."""
    interrupt_seconds: float = 10.0
    """How long interrupted turns may take to store their ends, while some of them do."""
    adopt_seconds: float = 2.0
    """How long a turn is offered: more than twice the longest pause between another process's sweeps."""
    poll_seconds: float = 0.2
    """Pause between two reads of the offered turns' states."""


@dataclass(frozen=True, slots=True)
class MaintenanceIntervals:
    """Pauses between the periodic jobs of a process, in seconds."""

    sweep_seconds: float = 0.8
    """A released turn waits at most this long for a process to adopt it."""
    status_seconds: float = 1.0
    expiry_seconds: float = 2.0
    """How late a question may expire."""
    checkpoint_seconds: float = 30.0
    """How often the fold of a long turn is stored, for backends that trim their logs."""
    tidy_seconds: float = 3600.0
    outbox_seconds: float = 2.0
    """An outbox entry waits at most this long after another process wrote it, or after it became due."""
    prove_seconds: float = 5.0
    """How long a readiness probe waits for a heartbeat."""


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """Bounds of the outbox worker."""

    max_entries: int = 8
    """Entries that are worked on at once."""
    run_seconds: float = 30.0
    """How long the auxiliary run of an entry may take."""
    max_failures: int = 5
    """Failed runs after which an entry is given up; tries without a backend do not count."""
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 300.0
    give_back_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """Bounds of the connections to the database, in seconds."""

    wait_seconds: float = 10.0
    """How long a request waits for a connection."""
    grow_seconds: float = 2.0
    """How long a process waits before it tries to open another connection after a refusal."""
    trusted_seconds: float = 1.0
    """How long a connection that was used is used again without a probe, which is a round trip."""
    close_seconds: float = 1.0
    """How long the close waits for shielded work, and once more after it has broken all connections."""


@dataclass(frozen=True, slots=True)
class BackendLimits:
    """Bounds of the requests to an agent backend, in seconds; each begins when there is a connection."""

    connect_seconds: float = 5.0
    create_seconds: float = 30.0
    call_seconds: float = 5.0
    """The bound of every other short request."""
    open_stream_seconds: float = 10.0
    """How long the headers of an event stream may take. After them the runner watches for silence."""
    spare_seconds: float = 2.0
    """How long the connection of a new run is kept for its event stream."""
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of the requests of clients."""

    key_seconds: float = 30.0
    """How long an API key is cached before the database is asked again."""
    max_keys: int = 10_000
    """API keys in the cache."""
    first_event_seconds: float = 0.9
    """How long a response waits for a first event, so that an early failure gets its real status."""
    deleted_check_seconds: float = 1.0
    """How long a reader of a live turn waits to hear whether its conversation was deleted."""
    suggestions_seconds: float = 10.0
    """How long a request waits while questions are made."""
    suggestions_poll_seconds: float = 0.5
    name_seconds: float = 5.0
    """How long a request waits while the name of its conversation is made."""


@dataclass(frozen=True, slots=True)
class StartLimits:
    """Bounds of a start, in seconds."""

    listen_seconds: float = 5.0
    """How long a start waits for the database's answer before the process listens."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one connection of a client."""

    head_seconds: float = 20.0
    """How long a new connection may be silent, and how long a head may take."""
    stall_seconds: float = 30.0
    """The longest time in which a client sends `stall_bytes` of a body, or reads them of a response."""
    stall_bytes: int = 16 * 1024
    linger_seconds: float = 30.0
    linger_bytes: int = 64 * 1024 * 1024
    """Bytes that are read and discarded after a client was refused before it had sent everything.

    Otherwise its sending fails, and the client never sees the reason.
    """
    look_seconds: float = 2.0
    """Pause between two checks for slow clients and deadlines."""


@dataclass(frozen=True, slots=True)
class Limits:
    """All bounds of a process."""

    turn: TurnLimits = field(default_factory=TurnLimits)
    registry: RegistryLimits = field(default_factory=RegistryLimits)
    drain: DrainLimits = field(default_factory=DrainLimits)
    maintenance: MaintenanceIntervals = field(default_factory=MaintenanceIntervals)
    outbox: OutboxLimits = field(default_factory=OutboxLimits)
    database: DatabaseLimits = field(default_factory=DatabaseLimits)
    backend: BackendLimits = field(default_factory=BackendLimits)
    requests: RequestLimits = field(default_factory=RequestLimits)
    start: StartLimits = field(default_factory=StartLimits)
    server: ServerLimits = field(default_factory=ServerLimits)


DEFAULTS: Final = Limits()
