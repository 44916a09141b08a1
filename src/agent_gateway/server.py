"""The uvicorn server that drains before it exits."""

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from agent_gateway.routes.dependencies import Gateway


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM or SIGINT lets turns and streams end, then exits.

    The second interrupts the running turns, which end visibly; the third waits for nobody.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self.drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None
        self._hurry: asyncio.Task[None] | None = None

    @override
    async def serve(self, sockets: list[asyncio.trsock.TransportSocket] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)  # type: ignore[arg-type]

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs in a signal handler, outside the loop: hands over and returns."""
        gateway: Gateway | None = getattr(self._app.state, "gateway", None)
        if self._loop is None or gateway is None or self.should_exit:
            super().handle_exit(sig, frame)
            return
        self._loop.call_soon_threadsafe(self._on_signal, gateway, sig, frame)

    def _on_signal(self, gateway: Gateway, sig: int, frame: FrameType | None) -> None:
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_then_exit(gateway, sig, frame), name="drain")
        elif self._hurry is None:
            self._hurry = asyncio.create_task(gateway.live.drain(0), name="drain-now")
        else:
            self.force_exit = True
            super().handle_exit(sig, frame)

    async def _drain_then_exit(self, gateway: Gateway, sig: int, frame: FrameType | None) -> None:
        try:
            await gateway.live.drain(self.drain_seconds)
        finally:
            super().handle_exit(sig, frame)
