"""One reader of a live turn: an index into its log, and one of two states.

              the log has no more for it
     behind ─────────────────────────────▶ caught up
        ▲                                      │
        └──────────────────────────────────────┘
          its socket takes no more, the turn ends or was handed
          over, it needs a ping, or its client left

*Behind*, its task pulls frames and sends them, as fast as the client reads. *Caught up*, the task sleeps, and
the log calls the reader inside of the very event that brought the news: the shared frame goes to the socket
without a switch of tasks. Frames cannot be lost, doubled or swapped at a change of state: both states
continue at the same index, and only one of them sends.
"""

import asyncio
from typing import Final

from agent_gateway.crowd import Ticker
from agent_gateway.domain.events import GATEWAY_REPLACE
from agent_gateway.routes.streams.frames import (
    HANDED_OVER_RETRY_MS,
    MAX_WRITE,
    PING,
    RETRY_MS,
    FrameCache,
    FrameVariant,
    retry,
)
from agent_gateway.routes.streams.stored import send_stored
from agent_gateway.routes.streams.wire import ClientLeft, Wire
from agent_gateway.turns.live_turn import LiveTurn

PING_TICKS: Final = 10
"""Ticks of silence before a ping: so it comes at most a tenth of its interval early, and never late."""


class Reader:
    """Reads one live turn beyond a position, to the turn's end; `ticker` ticks PING_TICKS times per ping.

    When this process hands the turn over, a reader that carries ids is sent away to come back elsewhere;
    any other is served to the end (R12).
    """

    __slots__ = (
        "_after",
        "_behind",
        "_cache",
        "_index",
        "_live",
        "_log",
        "_spoke",
        "_ticker",
        "_variant",
        "_wire",
    )

    def __init__(
        self,
        live: LiveTurn,
        cache: FrameCache,
        variant: FrameVariant,
        wire: Wire,
        ticker: Ticker,
        *,
        after: int,
    ) -> None:
        self._live = live
        self._log = live.log
        self._cache = cache
        self._variant = variant
        self._wire = wire
        self._ticker = ticker
        self._after = after
        self._index = self._log.index_after(after)
        self._spoke = 0
        """The tick before its last bytes."""
        self._behind: asyncio.Future[bool] | None = None
        """Set while it is caught up; resolved when it falls behind, with False if it needs a ping."""

    async def read(self) -> None:
        """Send all there is, then all that comes; returns at the end, and raises ClientLeft."""
        with self._live.reading():
            if self._variant.ids:
                await self._send(retry(RETRY_MS))
            if self._index >= len(self._log.events) and not self._log.closed:
                await self._send(PING)
            await self._pull()

    # -- behind ---------------------------------------------------------------------------------------

    async def _pull(self) -> None:
        live, log, wire = self._live, self._log, self._wire
        while True:
            if (
                log.closed
                and live.result is not None
                and live.runner.position < self._after < GATEWAY_REPLACE
            ):
                # Another process sent this reader more of the run than this process ever folded.
                await send_stored(wire, self._cache.encoder, live.result, self._variant, self._after)
                return
            if self._is_ahead():
                self._index = log.index_after(self._after)
            data, reached = self._cache.read(self._variant, self._index)
            if reached > self._index:
                self._index = reached
                if log.closed and reached == len(log.events) and len(data) <= MAX_WRITE:
                    wire.last = data
                    return
                await self._send(data)
                if len(data) >= MAX_WRITE:
                    await asyncio.sleep(0)
            elif log.closed:
                return
            elif self._variant.ids and live.handed_over:
                await self._send(retry(HANDED_OVER_RETRY_MS))
                return
            elif not await self._keep_up():
                await self._send(PING)

    async def _send(self, data: bytes) -> None:
        if data:
            await self._wire.send(data)
            self._spoke = self._ticker.ticks

    def _is_ahead(self) -> bool:
        """Whether this reader has seen more than the log has: the run is still being folded again."""
        return self._after > (self._log.events[self._index - 1].position if self._index else 0)

    # -- caught up ------------------------------------------------------------------------------------

    async def _keep_up(self) -> bool:
        """Be caught up until this reader falls behind; False when it needs a ping. Raises ClientLeft."""
        if self._wire.left:
            raise ClientLeft
        behind: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._behind = behind
        on_news = self._fall_behind if self._is_ahead() else self._on_news
        self._log.caught_up.join(on_news)
        self._ticker.join(self._on_tick)
        self._wire.on_leave = self._fall_behind
        try:
            return await behind
        finally:
            self._log.caught_up.leave(on_news)
            self._ticker.leave(self._on_tick)
            self._wire.on_leave = None
            self._behind = None

    def _on_news(self) -> None:
        """Send what is new, inside of the event that brought it.

        This runs for each token and each reader. So it does nothing that only some of them need: whatever is
        not plain news wakes the task, which looks at everything.
        """
        if self._behind is None or self._behind.done():
            return
        if self._log.closes:
            # The last frame is sent together with the end of the response.
            self._fall_behind()
            return
        try:
            data, reached = self._cache.read(self._variant, self._index)
            if data:
                if not self._wire.push(data):
                    self._fall_behind()
                    return
                self._spoke = self._ticker.ticks
        except Exception as error:  # noqa: BLE001 - it is this reader's failure, not that of the event
            self._behind.set_exception(error)
            return
        self._index = reached
        handed_over = self._variant.ids and self._live.handed_over
        if reached < len(self._log.events) or self._log.closed or handed_over:
            self._fall_behind()

    def _on_tick(self) -> None:
        """Ping after a silence, if the client reads; else the task waits until it does."""
        if self._ticker.ticks - self._spoke < PING_TICKS or self._behind is None or self._behind.done():
            return
        if self._wire.push(PING):
            self._spoke = self._ticker.ticks
        else:
            self._fall_behind(is_news=False)

    def _fall_behind(self, *, is_news: bool = True) -> None:
        if self._behind is not None and not self._behind.done():
            self._behind.set_result(is_news)
