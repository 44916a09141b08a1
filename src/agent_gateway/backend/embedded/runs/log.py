"""What runs need of their log. The store implements it, in the database."""

from collections.abc import Callable, Sequence
from typing import Protocol

from agent_gateway.domain.ids import RunId
from agent_gateway.domain.run_log import Batch, HeldRun, NewRun, Reading, TakenRun


class RunLog(Protocol):
    """The log of all runs. All methods raise StoreUnavailable and StoreRejected.

    What this process writes names it as the owner of the run, under an epoch. A write under another epoch, or
    after the run's end, changes nothing.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes write to the same log."""
        ...

    @property
    def lease_seconds(self) -> float:
        """How long a run is its owner's without a heartbeat."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """The time that all processes share, in seconds since 1970."""
        ...

    async def begin(self, new: NewRun) -> RunId:
        """Begin a run. Returns its id, or that of the earlier run with the same idempotency key."""
        ...

    async def append(self, batches: Sequence[Batch]) -> set[RunId]:
        """Append these batches, of different runs, in one commit. Returns those runs that are still ours.

        May be repeated when the answer of the first try was lost.
        """
        ...

    async def renew(self, held: Sequence[HeldRun]) -> set[RunId]:
        """Renew the leases of running runs; returns those that are still ours."""
        ...

    async def asked_to_cancel(self) -> dict[RunId, bytes]:
        """The running runs of ours that somebody wants to be cancelled: JSON of why."""
        ...

    async def ask_to_cancel(self, run_id: RunId, why: bytes) -> None:
        """Ask the owner of a run to cancel it."""
        ...

    async def read(self, run_id: str, after: int) -> Reading | None:
        """What the log says about a run, with some of its batches after this number; None if unknown."""
        ...

    async def poll(self, wanted: Sequence[tuple[RunId, int]]) -> dict[RunId, Reading]:
        """The same of many runs, in one statement."""
        ...

    async def take(self, run_id: RunId, epoch: int) -> TakenRun | None:
        """Become the owner of a run whose owner under this epoch is gone; None when another was faster."""
        ...

    async def prune(self) -> int:
        """Delete the runs that ended long ago; returns how many."""
        ...
