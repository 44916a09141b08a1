"""What an agent knows of its run: how it emits events, and how a run can end."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from agent_gateway.backend.protocol import CreateRunRequest

Emit = Callable[[bytes, bytes], Awaitable[None]]
"""Takes the JSON of one agent event, and that of its text delta: null when it has none.

What it returns need not be awaited. Awaited, it waits until the event is in the log: for an event before
something that must not happen twice.
"""
Execute = Callable[[CreateRunRequest, Emit], Awaitable[bytes]]
"""Runs an agent and returns the JSON data of `run_succeeded`; raises RunFailed or RunInterrupted."""


class Stopping(Exception):
    """No new run is accepted: the process is stopping."""


class RunFailed(Exception):
    """The run cannot be completed. Its texts reach readers of the run, so they hold no secrets.

    `cause` is what operators are told; give one if `error` repeats words of a user.
    """

    def __init__(self, error: str, reason: str | None = None, cause: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.reason = reason
        self.cause = error if cause is None else cause


class RunInterrupted(Exception):
    """The run's task was cancelled. `leftovers` are the data that it leaves (session snapshot, usage)."""

    def __init__(self, leftovers: Mapping[str, object]) -> None:
        super().__init__("interrupted")
        self.leftovers = leftovers


class Cancellation(NamedTuple):
    """Why a run is to be cancelled, in the words of the caller."""

    reason: str | None
    message: str | None


Ending = Cancellation | RunFailed
