"""A turn that is read with a sync client."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

import httpx
from httpx_sse import EventSource

from agent_gateway_client.openings import StreamRequest
from agent_gateway_client.resumption import Damaged, Resumption
from agent_gateway_client.transport import EARLY_END, reason_of
from agent_gateway_client.turn_state import TurnState
from agent_gateway_client.types import ChatStreamEvent

Open = Callable[[StreamRequest], AbstractContextManager[httpx.Response]]
Stop = Callable[[str], object]


class Turn(TurnState):
    """The events of one turn, each once and in order, however often the connection is cut.

    Iterate over it, or call `text()`. The request is sent when the first event is asked for. After a `break`
    the iteration can go on where it was. As a context manager it closes its connection at the end; the turn
    itself goes on at the gateway, unless it is stopped.
    """

    def __init__(self, resumption: Resumption, open_: Open, stop: Stop) -> None:
        super().__init__(resumption)
        self._open = open_
        self._stop = stop
        self._events: Iterator[ChatStreamEvent] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ChatStreamEvent:
        if self._events is None:
            self._events = self._read()
        try:
            return next(self._events)
        except BaseException:
            # A generator that has raised is over; the next one goes on after the last event.
            self._events = None
            raise

    def text(self) -> str:
        """Read to the end; the whole answer. Raises GatewayError when the turn failed."""
        for _ in self:
            pass
        if self.error is not None:
            raise self.error
        return self.answer

    def stop(self) -> None:
        """Stop the turn. Its partial answer stays, and its events end with `message_end`.

        May be called from any thread, also before the turn has begun: then it is stopped once it has.
        """
        self._resumption.is_stopping = True
        self._stop_if_due()

    def close(self) -> None:
        """Close the connection. The turn goes on at the gateway."""
        events, self._events = self._events, None
        close: Callable[[], None] | None = getattr(events, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Iterator[ChatStreamEvent]:
        resumption = self._resumption
        while not resumption.ended:
            try:
                with self._open(resumption.next_request()) as response:
                    if resumption.opens(response.status_code, response.headers):
                        yield from self._receive(response)
                    else:
                        resumption.answered(response.status_code, response.headers, response.read())
            except (httpx.RequestError, Damaged) as error:
                resumption.lost(reason_of(error), error)
            time.sleep(resumption.pause())

    def _receive(self, response: httpx.Response) -> Iterator[ChatStreamEvent]:
        resumption = self._resumption
        self._stop_if_due()
        for frame in EventSource(response).iter_sse():
            event = resumption.receive(frame.data)
            self._stop_if_due()
            if event is not None:
                yield event
            if resumption.ended:
                return
        resumption.lost(EARLY_END)

    def _stop_if_due(self) -> None:
        task_id = self._resumption.stop_due()
        if task_id is not None:
            self._stop(task_id)
