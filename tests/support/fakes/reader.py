"""One reader of a run's events: an SSE response that can be cut and knows when its client has gone."""

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.fakes.run import STATUS_OF, Cursor, Logged, Run, cursor_of
from tests.support.fakes.script import Cut, Forget, Keepalive, Raw, Trim

if TYPE_CHECKING:
    from tests.support.fakes.scripted_backend import ScriptedBackend


class EventStream(Response):
    """The log of a run from a cursor on, with the steps that happen to its reader."""

    def __init__(self, backend: "ScriptedBackend", run: Run, after: str | None) -> None:
        super().__init__(media_type="text/event-stream")
        self._backend = backend
        self._run = run
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._backend.open_streams += 1
        self._backend.notify()
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done() and not writing.result():
                scope["transport"].close()
                await leaving
        finally:
            writing.cancel()
            leaving.cancel()
            self._backend.open_streams -= 1
            self._backend.notify()

    async def _write(self, send: Send) -> bool:
        """False when the connection is to break, True when the response is complete."""
        try:
            after = cursor_of(self._after) if self._after else None
        except ValueError:
            return False
        index = self._run.entry_after(after)
        told_end = False
        while True:
            grown = self._run.changed
            body, index, ending, told = self._gather(index, after)
            told_end = told_end or told
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if ending is not None and not ending.clean:
                return False
            if ending is not None or (told_end and self._run.over and not self._run.script.keep_open):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return True
            await grown.wait()

    def _gather(self, index: int, after: Cursor | None) -> tuple[bytes, int, Cut | None, bool]:
        """The data to send now: bytes, next entry, whether to cut, whether a run's end is in it."""
        body = bytearray()
        told_end = False
        while index < len(self._run.log):
            entry = self._run.log[index]
            index += 1
            if isinstance(entry, Logged):
                if after is None or entry.cursor > after:
                    body += entry.frame
                    told_end = told_end or entry.event["type"] in STATUS_OF
            elif not entry.done:
                entry.done = True
                match entry.step:
                    case Cut() as cut:
                        return bytes(body), index, cut, told_end
                    case Keepalive():
                        body += b": keepalive\n\n"
                    case Raw(raw):
                        body += raw
                    case Trim(keep):
                        self._run.trim(keep, index)
                    case Forget():
                        self._backend.forget(self._run.id)
        return bytes(body), index, None, told_end


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
