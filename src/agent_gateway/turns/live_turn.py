"""One turn that this process drives or follows."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from agent_gateway.domain.events import Result
from agent_gateway.domain.turns import Turn
from agent_gateway.runner import TurnRunner
from agent_gateway.turns.log import EventLog

Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]
"""Starts a named task of the registry's task group."""


class LiveTurn:
    """A turn that this process drives or follows: its log for readers, its runner for the rest."""

    def __init__(self, turn: Turn, log: EventLog, runner: TurnRunner) -> None:
        self.log = log
        self.runner = runner
        self.ended = asyncio.Event()
        self._handed_over = False
        self._unread_since = asyncio.get_running_loop().time()
        self._task: asyncio.Task[Any] | None = None
        self._whose = (turn.app.id, turn.user)

    @property
    def turn(self) -> Turn:
        """The turn under its newest epoch."""
        return self.runner.turn

    @property
    def result(self) -> Result | None:
        """What was stored, once the turn has ended."""
        return self.runner.result

    @property
    def handed_over(self) -> bool:
        """True once this process leaves and another has the turn: readers that can resume go there."""
        return self._handed_over

    @property
    def readers(self) -> int:
        """How many read it here."""
        return self.log.readers

    def belongs_to(self, app_id: str, user: str) -> bool:
        """True for the app and user whose turn this is (I11)."""
        return self._whose == (app_id, user)

    def start(self, work: Coroutine[Any, Any, None], spawn: Spawn) -> None:
        """Run the turn's one task."""
        self._task = spawn(work, f"turn-{self.turn.task_id}")

    def cancel(self) -> None:
        """End the turn's task without an end of the turn: another process drives it, or nobody reads it."""
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """Nothing more comes. Its readers read on in the log."""
        self._task = None
        self.log.close()
        self.ended.set()

    def hand_over(self) -> None:
        """Send the readers that can resume elsewhere: this process leaves, and another one has the turn."""
        self._handed_over = True
        self.log.caught_up.call()

    def adopt(self, turn: Turn) -> None:
        """Drive the turn here, under this epoch; its readers may stay."""
        self._handed_over = False
        self.runner.adopt(turn)

    @contextmanager
    def reading(self) -> Generator[None]:
        """While somebody reads, a followed turn is kept."""
        self.log.readers += 1
        self.log.readers_ever += 1
        try:
            yield
        finally:
            self.log.readers -= 1
            self.touch()

    def touch(self) -> None:
        """A reader has just left, or is about to come."""
        self._unread_since = asyncio.get_running_loop().time()

    def unread_for(self, seconds: float) -> bool:
        """True when nobody has read it here for longer than this."""
        return not self.log.readers and asyncio.get_running_loop().time() - self._unread_since > seconds
