"""Many clients at once that reconnect as a browser's EventSource does, in one event loop."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.support.gateway_server import API_KEY
from tests.support.sse import Frame, FrameReader

CUT = (aiohttp.ClientError, ConnectionError)
"""The errors of a broken connection."""


class EventSource:
    """One client: begins a turn or is given one, and follows it to its end wherever it is sent."""

    def __init__(self, session: aiohttp.ClientSession, base_url: Callable[[], str], user: str) -> None:
        self.text = ""
        self.ids: list[int] = []
        self.end: str | None = None
        self.refusals: list[int] = []
        """Every status that a browser would not have come back after."""
        self.connections = 0
        self._session = session
        self._base_url = base_url
        self._user = user
        self._retry = 0.1

    async def begin(self) -> str:
        """Begin a turn; its task id."""
        body = {"query": "Hello", "user": self._user, "response_mode": "background"}
        headers = {"Authorization": f"Bearer {API_KEY}"}
        url = f"{self._base_url()}/chat-messages"
        async with self._session.post(url, json=body, headers=headers) as response:
            assert response.status == 202, await response.text()
            begun: dict[str, Any] = await response.json()
            return str(begun["task_id"])

    async def follow(self, task_id: str) -> None:
        """Read the turn's events to its end."""
        while self.end is None:
            with contextlib.suppress(*CUT):
                await self._read(task_id)
            if self.end is None:
                await asyncio.sleep(self._retry)

    async def _read(self, task_id: str) -> None:
        url = f"{self._base_url()}/chat-messages/{task_id}/events"
        headers = {"Authorization": f"Bearer {API_KEY}"}
        if self.ids:
            headers["Last-Event-ID"] = str(self.ids[-1])
        self.connections += 1
        async with self._session.get(url, params={"user": self._user}, headers=headers) as response:
            if response.status != 200:
                self.refusals.append(response.status)
                return
            reader = FrameReader()
            async for chunk in response.content.iter_any():
                for frame in reader.feed(chunk):
                    self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.retry is not None:
            self._retry = frame.retry / 1000
        if not frame.data:
            return
        event = frame.json
        self.ids.append(event["event_id"])
        if event["event"] == "message":
            self.text += event["answer"]
        elif event["event"] == "message_replace":
            self.text = event["answer"]
        else:
            self.end = event["event"]
