"""A turn to read: found in this process or in the rows, and what its readers are given."""

import asyncio
from dataclasses import dataclass

from agent_gateway.crowd import Ticker
from agent_gateway.domain.events import MessageReplace, Result, events_after
from agent_gateway.domain.ids import AppId, TaskId
from agent_gateway.errors import NotFound, StoreError, Unavailable
from agent_gateway.routes.streams.frames import Frames, FrameVariant
from agent_gateway.routes.streams.reader import Reader
from agent_gateway.routes.streams.stored import ended_body
from agent_gateway.routes.streams.wire import StreamBody
from agent_gateway.store.turns.reader import TurnView
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.live_turn import LiveTurn
from agent_gateway.turns.registry import LiveTurns


@dataclass(frozen=True, slots=True)
class TurnSource:
    """A turn to read."""

    view: TurnView
    source: LiveTurn | Result
    """Where its events are: live in this process, or as it ended in the rows."""
    turn_frames: Frames
    ticker: Ticker

    @property
    def live(self) -> LiveTurn | None:
        """The turn, if it is live in this process."""
        return self.source if isinstance(self.source, LiveTurn) else None

    async def result(self) -> Result:
        """How the turn ended, however long that takes."""
        if isinstance(self.source, Result):
            return self.source
        with self.source.reading():
            await self.source.ended.wait()
        if self.source.result is None:
            raise Unavailable("This server is shutting down. Please try again with the same Idempotency-Key.")
        return self.source.result

    def nothing_left(self, after: int) -> bool:
        """True when the turn has ended and there is no event beyond this position."""
        result = self.source if isinstance(self.source, Result) else self.source.result
        return result is not None and after >= result.end_position

    def replaces(self, after: int) -> bool:
        """True when a reader from beyond this position gets the whole text anew: its past is lost."""
        if isinstance(self.source, LiveTurn) and after < self.source.runner.past_lost_at:
            return True
        result = self.source if isinstance(self.source, Result) else self.source.result
        return result is not None and next(events_after(result, after), None).__class__ is MessageReplace

    def body(self, variant: FrameVariant, after: int) -> StreamBody:
        """What one reader gets beyond a position."""
        source = self.source
        if isinstance(source, Result):
            return ended_body(self.turn_frames.encoder(self.view), source, variant, after)
        cache = self.turn_frames.cache(source)
        return lambda wire: Reader(source, cache, variant, wire, self.ticker, after=after).read()


@dataclass(frozen=True, slots=True)
class TurnSources:
    """Finds turns in this process or in the rows, for those who may read them."""

    live: LiveTurns
    stores: TurnStores
    frames: Frames
    deleted_check_seconds: float
    """How long a reader of a live turn waits for the check that its conversation was not deleted."""
    ticker: Ticker
    """Makes the pings of all readers."""

    async def find(self, app_id: AppId, user: str, task_id: TaskId) -> TurnSource:
        """A turn of this app and user; NotFound when there is none."""
        live = self.live.find(task_id)
        if live is not None and live.belongs_to(app_id, user):
            if await self._is_deleted(task_id):
                raise NotFound("Task not found.")
            return self.of_live(live)
        view = await self.stores.reader.view(app_id, user, task_id)
        if view is not None:
            read = self.stores.reader.result if view.ended else self.live.follow
            source = await read(task_id)
            if source is not None:
                return TurnSource(view, source, self.frames, self.ticker)
        raise NotFound("Task not found.")

    def of_live(self, live: LiveTurn) -> TurnSource:
        """A turn that is live in this process."""
        turn = live.turn
        view = TurnView(
            turn.task_id,
            turn.conversation_id,
            turn.message_id,
            turn.created_at,
            mode=turn.app.config.mode,
            ended=live.ended.is_set(),
        )
        return TurnSource(view, live, self.frames, self.ticker)

    async def _is_deleted(self, task_id: TaskId) -> bool:
        """Whether a live turn's conversation is gone, which any process may have done (R16).

        A database that does not answer is no reason to cut readers off from a turn that runs here.
        """
        try:
            async with asyncio.timeout(self.deleted_check_seconds):
                return await self.stores.reader.is_deleted(task_id)
        except (StoreError, TimeoutError):
            return False
