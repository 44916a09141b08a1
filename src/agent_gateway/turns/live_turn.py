"""One turn that this process drives or follows."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from agent_gateway.domain.events import Result
from agent_gateway.domain.turns import Turn
from agent_gateway.runner import TurnRunner
from agent_gateway.turns.log import EventLog


class LiveTurn:
    """A turn that this process drives or follows: its log for readers, its runner for the rest."""

    def __init__(self, turn: Turn, log: EventLog, runner: TurnRunner) -> None:
        self.log = log
        self.runner = runner
        self.ended = asyncio.Event()
        self.handed_over = False
        """True once this process leaves and another has the turn: readers that can resume should go there."""
        self.kept_bytes = 0
        """What this counts for while it is kept after its end."""
        self.readers = 0
        self.unread_since = asyncio.get_running_loop().time()
        self.task: asyncio.Task[None] | None = None
        self._whose = (turn.app.id, turn.user)

    @property
    def turn(self) -> Turn:
        """The turn under its newest epoch."""
        return self.runner.turn

    @property
    def result(self) -> Result | None:
        """What was stored, once the turn has ended."""
        return self.runner.result

    def belongs_to(self, app_id: str, user: str) -> bool:
        """True for the app and user whose turn this is (I11)."""
        return self._whose == (app_id, user)

    def hand_over(self) -> None:
        """Send the readers that can resume elsewhere: this process leaves, and another one has the turn."""
        self.handed_over = True
        self.log.wake()

    @contextmanager
    def reading(self) -> Generator[None]:
        """While somebody reads, a followed turn is kept."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self.unread_since = asyncio.get_running_loop().time()
