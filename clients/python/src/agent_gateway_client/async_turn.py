"""A turn that is read with an async client: `turn.py` with `await`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import httpx
from httpx_sse import EventSource

from agent_gateway_client.openings import StreamRequest
from agent_gateway_client.resumption import Damaged, Resumption
from agent_gateway_client.transport import EARLY_END, reason_of
from agent_gateway_client.turn_state import TurnState
from agent_gateway_client.types import ChatStreamEvent

Open = Callable[[StreamRequest], AbstractAsyncContextManager[httpx.Response]]
Stop = Callable[[str], Awaitable[object]]


class AsyncTurn(TurnState):
    """The events of one turn, each once and in order, however often the connection is cut.

    Iterate over it, or call `text()`. The request is sent when the first event is asked for. After a `break`
    the iteration can go on where it was. As a context manager it closes its connection at the end; the turn
    itself goes on at the gateway, unless it is stopped.
    """

    def __init__(self, resumption: Resumption, open_: Open, stop: Stop) -> None:
        super().__init__(resumption)
        self._open = open_
        self._stop = stop
        self._events: AsyncIterator[ChatStreamEvent] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatStreamEvent:
        if self._events is None:
            self._events = self._read()
        try:
            return await anext(self._events)
        except BaseException:
            # A generator that has raised is over; the next one goes on after the last event.
            self._events = None
            raise

    async def text(self) -> str:
        """Read to the end; the whole answer. Raises GatewayError when the turn failed."""
        async for _ in self:
            pass
        if self.error is not None:
            raise self.error
        return self.answer

    async def stop(self) -> None:
        """Stop the turn. Its partial answer stays, and its events end with `message_end`.

        May be called from any task, also before the turn has begun: then it is stopped once it has.
        """
        self._resumption.is_stopping = True
        await self._stop_if_due()

    async def aclose(self) -> None:
        """Close the connection. The turn goes on at the gateway."""
        events, self._events = self._events, None
        close: Callable[[], Awaitable[None]] | None = getattr(events, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self) -> AsyncIterator[ChatStreamEvent]:
        resumption = self._resumption
        while not resumption.ended:
            try:
                async with self._open(resumption.next_request()) as response:
                    if resumption.opens(response.status_code, response.headers):
                        async for event in self._receive(response):
                            yield event
                    else:
                        resumption.answered(response.status_code, response.headers, await response.aread())
            except (httpx.RequestError, Damaged) as error:
                resumption.lost(reason_of(error), error)
            await asyncio.sleep(resumption.pause())

    async def _receive(self, response: httpx.Response) -> AsyncIterator[ChatStreamEvent]:
        resumption = self._resumption
        await self._stop_if_due()
        async for frame in EventSource(response).aiter_sse():
            event = resumption.receive(frame.data)
            await self._stop_if_due()
            if event is not None:
                yield event
            if resumption.ended:
                return
        resumption.lost(EARLY_END)

    async def _stop_if_due(self) -> None:
        task_id = self._resumption.stop_due()
        if task_id is not None:
            await self._stop(task_id)
