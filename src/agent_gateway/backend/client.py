"""The HTTP client of the run protocol: the only module that knows httpx.

A stream outlives its connections. After a cut the log is read again from the last-but-one cursor, so that
the first event proves that nothing is missing in between (R5). Bodies may contain secrets: they are neither
kept nor logged, whether sent or received, and neither are the foreign errors that hold them.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final
from urllib.parse import quote

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from agent_gateway.backend.generation_detection import Recognition
from agent_gateway.backend.generations import in_generation
from agent_gateway.backend.protocol import START, TERMINAL, CreateRunRequest, Cursors, OnEvents, RunEvent
from agent_gateway.backend.reconnect import ReconnectBudget, ResumePoint
from agent_gateway.backend.sse import FrameDecoder
from agent_gateway.domain.ids import Generation, RunId
from agent_gateway.domain.text import clean_text
from agent_gateway.errors import (
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendUnreachable,
    RunLost,
)
from agent_gateway.limits import DEFAULTS, BackendLimits

logger = logging.getLogger(__name__)

UNPROCESSABLE: Final = 422
"""The status that proves that the backend judged the request before it made a run."""

CANCEL_BODY: Final = b'{"reason":"user","message":"stopped by the user"}'

PASSING: Final = frozenset({408, 425, 429})
"""Refusals of a stream that are worth another try, as all statuses from 500 on are."""
MAX_RUN_ID: Final = 1024
"""Characters of a run's id."""

_EVENT_STREAM: Final = "text/event-stream"
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")
_PLAIN: Final = ("", "identity")
_PACKED: Final = ("gzip", "deflate")
"""Encodings that are unpacked. None is asked for, but some proxies compress anyway."""


class _Created(msgspec.Struct):
    run_id: str


class HTTPBackend:
    """A backend in another process, driven over HTTP and SSE (implements protocol.Backend).

    `base_url` may have a path prefix. `reconnect_seconds` bounds how long the client tries, without any
    progress, to create a run or to reach a cut stream again. `fallback` is the generation of the run
    protocol for a backend that does not say its own.
    """

    replayable = True

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        reconnect_seconds: float = 15.0,
        fallback: Generation | None = None,
        limits: BackendLimits = DEFAULTS.backend,
    ) -> None:
        # No connection is used twice: a stale connection looks the same as a request that was lost on
        # the way (R4), and every stream needs its own connection anyway.
        headers = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "agent-gateway"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._reconnect_seconds = reconnect_seconds
        self._limits = limits
        self._warned = False
        self._recognition = Recognition(self._openapi, fallback)
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=limits.connect_seconds),
            transport=_transport(),
            trust_env=False,
        )

    async def create_run(self, request: CreateRunRequest) -> RunId:
        """Start a run. Sends again only when it is proven that nothing was sent, or that no run was made.

        No run was made after a 503, and after a 422. After a 422 that complains about the form, the request
        is sent in the form of the other generation. When this call is cancelled while a request is on its
        way, it sends no other request, but still returns the run that was made.
        Raises TurnError when the request cannot be put into the backend's form.
        """
        generation = await self._recognition.generation(request.composition.schema_version)
        budget = ReconnectBudget(self._reconnect_seconds, self._limits)
        converted = False
        while True:
            try:
                response = await self._create(msgspec.json.encode(in_generation(request, generation)))
            except BackendUnreachable as error:
                if not error.nothing_sent:
                    raise
                await budget.pause(error)
            except BackendRefused as error:
                if error.status != 503:
                    raise
                await budget.pause(error)
            else:
                if response.status_code != UNPROCESSABLE:
                    return _run_id(response)
                # The backend may be another one than before, or a mixture of both generations.
                refused = BackendRefused(UNPROCESSABLE)
                other = await self._recognition.after_refusal(generation, response.content)
                if other is None:
                    raise refused
                if converted:
                    await budget.pause(refused)
                generation, converted = other, True

    async def _create(self, body: bytes) -> httpx.Response:
        expected = {200, 202, UNPROCESSABLE}
        call = asyncio.ensure_future(self._call("POST", "runs", self._limits.create_seconds, expected, body))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            try:
                response = await call
            except BackendError:
                raise asyncio.CancelledError from None
            if response.status_code == UNPROCESSABLE:
                raise
            return response

    async def _openapi(self) -> bytes:
        return (await self._call("GET", "openapi.json", self._limits.call_seconds, {200})).content

    async def stream(self, run_id: RunId, on_events: OnEvents, after: Cursors = START) -> None:
        """Hand over the events of a run after a resume point up to the first terminal one, once per read.

        Raises RunLost, RunGap, BackendRefused and BackendGarbage, and what `on_events` raises. When no event
        arrives within the reconnect budget, it raises the last error.
        """
        point = ResumePoint(after)
        budget = ReconnectBudget(self._reconnect_seconds, self._limits)
        while True:
            try:
                async with aclosing(self._connection(run_id, point, budget)) as batches:
                    async for batch in batches:
                        budget.renew()
                        on_events(batch)
                        if batch[-1].type in TERMINAL:
                            return
                error: BackendError = BackendUnreachable("the stream ended before the run")
            except (BackendUnreachable, BackendRefused) as cut:
                if not _is_passing(cut):
                    raise
                error = cut
            logger.info("the stream of the run was cut (%s)", error, extra={"run_id": run_id})
            await budget.pause(error)

    async def cancel(self, run_id: RunId) -> None:
        """Ask the backend to cancel a run. A run that has ended, or is unknown there, is no error."""
        await self._call(
            "POST", f"{_path(run_id)}/cancel", self._limits.call_seconds, {200, 404, 409}, CANCEL_BODY
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._recognition.aclose()
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, seconds: float, expected: set[int], body: bytes | None = None
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body is not None else None
        with _mapped():
            async with asyncio.timeout(seconds):
                response = await self._client.request(method, path, content=body, headers=headers)
        if response.status_code not in expected:
            raise BackendRefused(response.status_code)
        return response

    async def _connection(
        self, run_id: RunId, point: ResumePoint, budget: ReconnectBudget
    ) -> AsyncGenerator[list[RunEvent]]:
        """The new events of one connection, until it is cut."""
        async with self._opened(run_id, point.before) as response:
            budget.connected()
            point.reconnected()
            decoder = FrameDecoder()
            async for chunk in self._chunks(response):
                events, garbage = point.new_events(decoder.feed(chunk))
                if events:
                    yield events
                if garbage is not None:
                    raise garbage

    def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The bytes of an event stream as they arrive, unpacked if they are compressed."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding in _PLAIN:
            return response.aiter_raw()
        if encoding not in _PACKED:
            raise BackendGarbage(f"the encoding {encoding[:64]!r} of the event stream is not supported")
        if not self._warned:
            logger.warning("the backend compresses its event streams (%s): events may arrive late", encoding)
            self._warned = True
        return response.aiter_bytes()

    @asynccontextmanager
    async def _opened(self, run_id: RunId, after: str) -> AsyncGenerator[httpx.Response]:
        """The event stream of a run after a cursor; the connection is closed when the block is left."""
        request = self._client.build_request(
            "GET",
            f"{_path(run_id)}/events/sse",
            params={"after": after} if after else None,
            headers={"Accept": _EVENT_STREAM},
        )
        with _mapped():
            async with asyncio.timeout(self._limits.open_stream_seconds):
                response = await self._client.send(request, stream=True)
            try:
                if response.status_code == 404:
                    raise RunLost("the backend does not know the run")
                if response.status_code != 200:
                    raise BackendRefused(response.status_code)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != _EVENT_STREAM:
                    shown = kind if _MEDIA_TYPE.fullmatch(kind) else "something without a media type"
                    raise BackendGarbage(f"the answer is not an event stream but {shown!r}")
                yield response
            finally:
                await response.aclose()


def _is_passing(error: BackendUnreachable | BackendRefused) -> bool:
    """Whether a stream that ended with this error is worth another try."""
    return isinstance(error, BackendUnreachable) or error.status >= 500 or error.status in PASSING


def _transport() -> AiohttpTransport:
    """Sends the requests of httpx over connections of aiohttp, without a limit on their number."""
    tls = ssl.create_default_context()

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The transport's own session has no option for `force_close`; limit 0 means no limit.
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    return AiohttpTransport(verify=tls, trust_env=False, client=session)


@contextmanager
def _mapped() -> Generator[None]:
    """The one place where foreign errors become our own. They are not chained, since they hold bodies."""
    try:
        yield
    except httpx.DecodingError:
        raise BackendGarbage("the answer cannot be unpacked") from None
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as error:
        # aiohttp's error is more exact than httpx's, which is a ConnectTimeout for a lost answer, too.
        # Nothing but making a connection raises these two.
        reason = error.__cause__ or error
        nothing_sent = isinstance(reason, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
        raise BackendUnreachable(type(reason).__name__, nothing_sent=nothing_sent) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BackendGarbage("the answer does not follow the run protocol") from None


def _path(run_id: RunId) -> str:
    return f"runs/{quote(run_id, safe='')}"


def _run_id(response: httpx.Response) -> RunId:
    with _mapped():
        created = msgspec.json.decode(response.content, type=_Created)
    if not 0 < len(created.run_id) <= MAX_RUN_ID or clean_text(created.run_id) != created.run_id:
        raise BackendGarbage("the new run has no id")
    return RunId(created.run_id)
