"""What the log of the embedded agent's runs takes and gives: pure data."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from agent_gateway.domain.ids import RunId

RunStatus = Literal["running", "succeeded", "failed", "cancelled"]


class NewRun(NamedTuple):
    """A run that begins under epoch 1, with its first event."""

    id: RunId
    key: str | None
    """The idempotency key of its request."""
    conversation: str | None
    """The conversation that it belongs to, as the gateway calls it."""
    request: bytes | None
    """What another process needs to start it again; None when it must not."""
    data: bytes


class Batch(NamedTuple):
    """Events of a run that follow each other."""

    run_id: RunId
    epoch: int
    """That under which this process owns the run."""
    first: int
    """Number of the first of them; those of a run count from 1."""
    count: int
    data: bytes
    """Their envelopes, one in a line."""
    status: RunStatus
    """That of the run after them."""
    error: str | None
    """Why the run failed."""
    drop_request: bool
    """Whether the run can no longer be started again."""


class HeldRun(NamedTuple):
    """A run that this process owns, under an epoch."""

    id: RunId
    epoch: int


class Reading(NamedTuple):
    """What the log says about a run."""

    status: RunStatus
    error: str | None
    epoch: int
    created_at: datetime
    lost: bool
    """Whether it runs no longer, although it has not ended: its owner is gone."""
    pieces: Sequence[bytes]
    """The data of its batches after a number, in order; more may follow."""


class TakenRun(NamedTuple):
    """A run of which this process has become the owner."""

    epoch: int
    request: bytes | None
    cancel: bytes | None
    """JSON of why somebody wants it to be cancelled."""
