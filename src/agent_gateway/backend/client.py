"""The HTTP client of the run protocol: the only module that knows httpx.

A stream outlives its connections: after a cut it goes on from the last-but-one cursor, so that the
first event that comes proves that nothing is missing in between (R5). Bodies, sent or received, are
neither kept nor logged, nor are the foreign errors that hold them: they may contain secrets.
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

from agent_gateway.backend.generations import in_generation
from agent_gateway.backend.protocol import (
    START,
    TERMINAL,
    CreateRunRequest,
    Cursors,
    RunEvent,
    decode_event,
)
from agent_gateway.backend.recognition import Recognition
from agent_gateway.backend.sse import FrameDecoder
from agent_gateway.domain.ids import Generation, RunId
from agent_gateway.domain.text import clean_text
from agent_gateway.errors import (
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendUnreachable,
    RunGap,
    RunLost,
)
from agent_gateway.limits import DEFAULTS, BackendLimits
from agent_gateway.retry import doubled, full_jitter

log = logging.getLogger(__name__)

UNPROCESSABLE: Final = 422
"""The status that proves that a request was judged before any run was made of it."""

CANCEL_BODY: Final = b'{"reason":"user","message":"stopped by the user"}'

PASSING: Final = frozenset({408, 425, 429})
"""Refusals of a stream after which it is worth another try, as after those of 500 and more."""
MAX_RUN_ID: Final = 1024
"""Characters of a run's id."""

_EVENT_STREAM: Final = "text/event-stream"
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")
_PLAIN: Final = ("", "identity")
_PACKED: Final = ("gzip", "deflate")
"""Encodings that are unpacked, although none is asked for: there are proxies that compress all the same."""


class _Created(msgspec.Struct):
    run_id: str


class HTTPBackend:
    """A backend somewhere else, driven over HTTP and SSE (implements protocol.Backend).

    `base_url` may have a path prefix. `reconnect_seconds` is how long, without any progress, a run
    is tried to be created or a cut stream to be reached again. `fallback` is the generation of the run
    protocol to speak with a backend that does not say its own.
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
        # No connection is used twice: a stale one can not be told from a request that was lost on
        # the way (R4), and every stream needs one of its own anyway.
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
        """Start a run. Sends again only when it is proven that nothing was sent, or that no run was made:
        after a 503, and after a 422 in the form of the other generation if that is what was wrong.

        Raises TurnError when the request can not be put into the backend's form. Cancelled while a request
        is on its way, it sends no other, but still tells which run that made.
        """
        generation = await self._recognition.generation(request.composition.schema_version)
        patience = _Patience(self._reconnect_seconds, self._limits)
        converted = False
        while True:
            try:
                response = await self._create(msgspec.json.encode(in_generation(request, generation)))
            except BackendUnreachable as error:
                if not error.nothing_sent:
                    raise
                await patience.pause(error)
            except BackendRefused as error:
                if error.status != 503:
                    raise
                await patience.pause(error)
            else:
                if response.status_code != UNPROCESSABLE:
                    return _run_id(response)
                # No run was made. The backend may be another one than before, or a mixture of both.
                refused = BackendRefused(UNPROCESSABLE)
                other = await self._recognition.after_refusal(generation, response.content)
                if other is None:
                    raise refused
                if converted:
                    await patience.pause(refused)
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

    async def stream(self, run_id: RunId, after: Cursors = START) -> AsyncGenerator[list[RunEvent]]:
        """The events of a run behind a place up to the first terminal one, one list per network read.

        Raises RunLost, RunGap, BackendRefused, BackendGarbage, or what went wrong last when no event
        came through within the budget. The budget is spent between connections only: a silent
        connection costs none, one that is cut at once costs the pause before the next.
        """
        place = _Place(after)
        patience = _Patience(self._reconnect_seconds, self._limits)
        while True:
            try:
                async with aclosing(self._connection(run_id, place, patience)) as batches:
                    async for batch in batches:
                        patience.renew()
                        yield batch
                        if batch[-1].type in TERMINAL:
                            return
                error: BackendError = BackendUnreachable("the stream ended before the run")
            except BackendUnreachable as unreachable:
                error = unreachable
            except BackendRefused as refused:
                if refused.status < 500 and refused.status not in PASSING:
                    raise
                error = refused
            log.info("the stream of run %s was cut (%s)", run_id, error)
            await patience.pause(error)

    async def cancel(self, run_id: RunId) -> None:
        """Ask for a run to be cancelled; one that is over, unknown or held elsewhere is no error."""
        seconds, expected = self._limits.call_seconds, {200, 404, 409}
        await self._call("POST", f"{_path(run_id)}/cancel", seconds, expected, CANCEL_BODY)

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
        self, run_id: RunId, place: "_Place", patience: "_Patience"
    ) -> AsyncGenerator[list[RunEvent]]:
        """The new events of one connection, until it is cut."""
        async with self._opened(run_id, place.before) as response:
            patience.connected()
            place.reconnected()
            decoder = FrameDecoder()
            async for chunk in self._chunks(response):
                events: list[RunEvent] = []
                try:
                    for frame in decoder.feed(chunk):
                        event = decode_event(frame.data, frame.id)
                        if place.is_new(event):
                            events.append(event)
                        if event.type in TERMINAL:
                            break
                except BackendGarbage:
                    # What came before it was good, however the bytes were cut into reads.
                    if events:
                        yield events
                    raise
                if events:
                    yield events

    def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The bytes of an event stream as they come, unpacked if they have to be."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding in _PLAIN:
            return response.aiter_raw()
        if encoding not in _PACKED:
            raise BackendGarbage(f"the event stream comes in the encoding {encoding[:64]!r}, not as it is")
        if not self._warned:
            log.warning("event streams of the backend come compressed (%s): events may be held up", encoding)
            self._warned = True
        return response.aiter_bytes()

    @asynccontextmanager
    async def _opened(self, run_id: RunId, after: str) -> AsyncGenerator[httpx.Response]:
        """The event stream of a run behind a cursor; its connection is gone when this is left."""
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
                    told = kind if _MEDIA_TYPE.fullmatch(kind) else "something without a media type"
                    raise BackendGarbage(f"the answer is not an event stream but {told!r}")
                yield response
            finally:
                await response.aclose()


class _Place:
    """Where a stream stands in the log of its run: the last two cursors."""

    def __init__(self, cursors: Cursors) -> None:
        self.before, self._last = cursors
        self._unproven = True

    def reconnected(self) -> None:
        """The next event has to prove that the log goes on where it was left."""
        self._unproven = True

    def is_new(self, event: RunEvent) -> bool:
        """False for the one event that repeats the last delivered; raises RunGap for the wrong one."""
        if self._unproven:
            if not self.before and event.type != "run_started":
                raise RunGap("the run's log does not begin with its start")
            if self._last and event.id != self._last:
                raise RunGap("the run's log does not go on where it was left")
            self._unproven = False
            if self._last:
                return False
        self.before, self._last = self._last, event.id
        return True


class _Patience:
    """Pauses with full jitter, and how many seconds without a connection are borne before giving up."""

    def __init__(self, seconds: float, limits: BackendLimits) -> None:
        self._seconds = seconds
        self._limits = limits
        self._spent = 0.0
        self._failures = 0
        self._down_since: float | None = asyncio.get_running_loop().time()

    def connected(self) -> None:
        """From now on no budget is spent; it is back only with `renew`."""
        if self._down_since is not None:
            self._spent += asyncio.get_running_loop().time() - self._down_since
            self._down_since = None

    def renew(self) -> None:
        """There was progress: the whole budget and short pauses again."""
        self._spent = 0.0
        self._failures = 0

    async def pause(self, error: BackendError) -> None:
        """Wait before the next attempt; raises `error` when the budget does not allow for one."""
        now = asyncio.get_running_loop().time()
        if self._down_since is None:
            self._down_since = now
        first, longest = self._limits.first_pause_seconds, self._limits.longest_pause_seconds
        seconds = full_jitter(doubled(self._failures, first, longest))
        if self._spent + now - self._down_since + seconds > self._seconds:
            raise error
        self._failures += 1
        await asyncio.sleep(seconds)


def _transport() -> AiohttpTransport:
    """httpx's requests on aiohttp's connections, as many as there are streams."""
    tls = ssl.create_default_context()

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # The transport's own session has no way to say `force_close`; limit 0 is no limit.
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    return AiohttpTransport(verify=tls, trust_env=False, client=session)


@contextmanager
def _mapped() -> Generator[None]:
    """The one seam where foreign errors become our own. They are not chained: they hold the bodies."""
    try:
        yield
    except httpx.DecodingError:
        raise BackendGarbage("the answer can not be unpacked") from None
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as error:
        # aiohttp's error says more than httpx's: a lost answer is a ConnectTimeout there, too. Only
        # these two are raised by nothing but the making of a connection.
        reason = error.__cause__ or error
        nothing_sent = isinstance(reason, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
        raise BackendUnreachable(type(reason).__name__, nothing_sent=nothing_sent) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BackendGarbage("the answer is not what the run protocol says") from None


def _path(run_id: RunId) -> str:
    return f"runs/{quote(run_id, safe='')}"


def _run_id(response: httpx.Response) -> RunId:
    with _mapped():
        created = msgspec.json.decode(response.content, type=_Created)
    if not 0 < len(created.run_id) <= MAX_RUN_ID or clean_text(created.run_id) != created.run_id:
        raise BackendGarbage("the new run has no id")
    return RunId(created.run_id)
