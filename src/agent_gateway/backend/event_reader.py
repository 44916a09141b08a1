"""From the bytes of a run's event streams to its events, as they arrive."""

from agent_gateway.backend.http.encodings import Unpacker
from agent_gateway.backend.protocol import TERMINAL, OnEvents
from agent_gateway.backend.reconnect import ReconnectBudget, ResumePoint
from agent_gateway.backend.sse import FrameDecoder


class EventReader:
    """Reads one run over all its connections, and hands each event over once."""

    def __init__(self, on_events: OnEvents, point: ResumePoint, budget: ReconnectBudget) -> None:
        self.ended = False
        """The terminal event was handed over."""
        self._on_events = on_events
        self._point = point
        self._budget = budget
        self._decoder = FrameDecoder()
        self._unpacker: Unpacker | None = None

    def connected(self, unpacker: Unpacker | None) -> None:
        """What follows comes from another connection; with the unpacker of a compressed stream."""
        self._budget.connected()
        self._point.reconnected()
        self._decoder = FrameDecoder()
        self._unpacker = unpacker

    def take(self, data: bytes) -> bool:
        """Hand over the events that these bytes complete; True after the terminal one.

        It is called once for each read of the network, inside the reader of the connection. Raises RunGap
        and BackendGarbage, and what the callback raises.
        """
        if self._unpacker is not None:
            data = self._unpacker.unpack(data)
        events, garbage = self._point.new_events(self._decoder.feed(data))
        if events:
            self._budget.renew()
            self._on_events(events)
            if events[-1].type in TERMINAL:
                self.ended = True
                return True
        if garbage is not None:
            raise garbage
        return False
