"""The client of the run protocol over HTTP.

A stream outlives its connections. After a cut the log is read again from the last-but-one cursor, so that
the first event proves that nothing is missing in between (R5). Bodies may contain secrets: they are neither
kept nor logged, whether sent or received, and neither are the foreign errors that hold them.
"""

import asyncio
import logging
import re
from typing import Final, NamedTuple, Self
from urllib.parse import quote, urlencode

import msgspec

from agent_gateway import metrics
from agent_gateway.backend.event_reader import EventReader
from agent_gateway.backend.generation_detection import Recognition
from agent_gateway.backend.generations import in_generation
from agent_gateway.backend.http.address import Address
from agent_gateway.backend.http.connection import Connection, Head
from agent_gateway.backend.http.dialer import Dialer
from agent_gateway.backend.http.encodings import PACKED, PLAIN, Unpacker
from agent_gateway.backend.http.spares import Spares
from agent_gateway.backend.lenient import UNREADABLE, as_dict, as_list, read_json
from agent_gateway.backend.protocol import START, CreateRunRequest, Cursors, OnEvents
from agent_gateway.backend.reconnect import ReconnectBudget, ResumePoint
from agent_gateway.causes import mistakes_in, plain_word
from agent_gateway.conditions import Condition
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

CREATED: Final = frozenset({200, 202})
"""The statuses of a new run."""
UNPROCESSABLE: Final = 422
"""The status that proves that the backend judged the request before it made a run."""

CANCEL_BODY: Final = b'{"reason":"user","message":"stopped by the user"}'

PASSING: Final = frozenset({408, 425, 429})
"""Refusals of a stream that are worth another try, as all statuses from 500 on are."""
MAX_RUN_ID: Final = 1024
"""Characters of a run's id."""

_EVENT_STREAM: Final = "text/event-stream"
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


class _Created(msgspec.Struct):
    run_id: str


class _Answer(NamedTuple):
    status: int
    content: bytes


class HTTPBackend:
    """A backend in another process, driven over HTTP and SSE (implements protocol.Backend).

    `base_url` may have a path prefix. `reconnect_seconds` bounds how long the client tries, without any
    progress, to create a run or to reach a cut stream again. `fallback` is the generation of the run
    protocol for a backend that does not say its own.
    """

    outlives_process = True

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        reconnect_seconds: float = 15.0,
        fallback: Generation | None = None,
        limits: BackendLimits = DEFAULTS.backend,
    ) -> None:
        self._reconnect_seconds = reconnect_seconds
        self._limits = limits
        self._warned = False
        self._away = Condition(logger, "the backend is away")
        self._recognition = Recognition(self.openapi, fallback)
        self._address = Address(base_url, token)
        self._dialer = Dialer(self._address, limits.connect_seconds)
        self._spares = Spares(limits.spare_seconds)

    async def takes_files(self) -> bool:
        """Whether the backend's OpenAPI document says so. When it cannot be read, what it said last."""
        return await self._recognition.takes_files()

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
                answer = await self._create(msgspec.json.encode(in_generation(request, generation)))
            except BackendUnreachable as error:
                self._away.met(error)
                if not error.nothing_sent:
                    raise
                await budget.pause(error)
            except BackendRefused as error:
                if error.status != 503:
                    if not _is_passing(error):
                        self._away.passed()
                    raise
                self._away.met(error)
                await budget.pause(error)
            else:
                self._away.passed()
                if answer.status != UNPROCESSABLE:
                    return _run_id(answer)
                # The backend may be another one than before, or a mixture of both generations.
                refused = _refusal(answer)
                other = await self._recognition.after_refusal(generation, answer.content)
                if other is None:
                    raise refused
                if converted:
                    await budget.pause(refused)
                generation, converted = other, True

    async def _create(self, body: bytes) -> _Answer:
        expected = {200, 202, UNPROCESSABLE}
        request = self._address.post("runs", body)
        call = asyncio.ensure_future(
            self._call("create", request, self._limits.create_seconds, expected, keep=True)
        )
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            try:
                answer = await call
            except BackendError:
                raise asyncio.CancelledError from None
            if answer.status == UNPROCESSABLE:
                raise
            return answer

    async def openapi(self) -> bytes:
        """The document that describes the backend, whatever it says. Raises BackendError."""
        request = self._address.get("openapi.json", "application/json")
        return (await self._call("openapi", request, self._limits.call_seconds, {200})).content

    async def stream(self, run_id: RunId, on_events: OnEvents, after: Cursors = START) -> None:
        """Hand over the events of a run after a resume point up to the first terminal one, once per read.

        Raises RunLost, RunGap, BackendRefused and BackendGarbage, and what `on_events` raises. When no event
        arrives within the reconnect budget, it raises the last error.
        """
        point = ResumePoint(after)
        budget = ReconnectBudget(self._reconnect_seconds, self._limits)
        reader = EventReader(on_events, point, budget)
        while True:
            try:
                await self._read(run_id, point.before, reader)
                if reader.ended:
                    return
                error: BackendError = BackendUnreachable("the stream ended before the run")
            except (BackendUnreachable, BackendRefused) as cut:
                if not _is_passing(cut):
                    raise
                error = cut
            logger.debug("the stream of the run was cut (%s)", error, extra={"run_id": run_id})
            if budget.failures:
                # A cut alone is ordinary: the stream is opened again. Now that did not work.
                self._away.met(error)
            await budget.pause(error)
            metrics.BACKEND_RECONNECTS.inc()

    async def cancel(self, run_id: RunId) -> None:
        """Ask the backend to cancel a run. A run that has ended, or is unknown there, is no error."""
        request = self._address.post(f"{_path(run_id)}/cancel", CANCEL_BODY)
        await self._call("cancel", request, self._limits.call_seconds, {200, 404, 409})

    async def aclose(self) -> None:
        """Close the connections that nobody uses. A call or a stream closes its own when it is cancelled."""
        await self._recognition.aclose()
        self._spares.close()

    async def _call(
        self, call: str, request: bytes, seconds: float, expected: set[int], *, keep: bool = False
    ) -> _Answer:
        """Send a request on a new connection: on a used one, a lost request could look like a lost answer.

        The whole answer has to come within `seconds`. With `keep` the connection is then a spare one.
        """
        with _counted(call) as count:
            answer = await self._answered(request, seconds, expected, keep=keep)
            if answer.status == UNPROCESSABLE:
                count.refused()
            return answer

    async def _answered(self, request: bytes, seconds: float, expected: set[int], *, keep: bool) -> _Answer:
        connection = await self._dialer.dial()
        try:
            head = await connection.send(request, seconds)
            content = await connection.body()
            if keep and head.status in CREATED:
                self._spares.keep(connection)
        finally:
            if connection not in self._spares:
                connection.close()
        encoding = head.header(b"content-encoding")
        if head.status not in expected:
            # What is packed is not read: its status says enough, whatever the bytes are.
            raise _refusal(_Answer(head.status, b"" if encoding in PACKED else content))
        return _Answer(head.status, Unpacker(encoding).unpack(content) if encoding in PACKED else content)

    async def _read(self, run_id: RunId, after: str, reader: EventReader) -> None:
        """Read the events after a cursor from one connection, until it ends or the run does."""
        query = f"?{urlencode({'after': after})}" if after else ""
        request = self._address.get(f"{_path(run_id)}/events/sse{query}", _EVENT_STREAM)
        with _counted("stream"):
            connection, unpacker = await self._open_stream(request)
        try:
            reader.connected(unpacker)
            self._away.passed()
            await connection.deliver(reader.take)
        finally:
            connection.close()

    async def _open_stream(self, request: bytes) -> tuple[Connection, Unpacker | None]:
        """The connection of an event stream, and what unpacks it."""
        connection, head = await self._open(request)
        try:
            return connection, self._unpacker(head)
        except BaseException:
            connection.close()
            raise

    async def _open(self, request: bytes) -> tuple[Connection, Head]:
        """Send the request for an event stream, and wait for the head of the answer.

        When the backend closes a spare connection meanwhile, a new one takes its place.
        """
        spare = self._spares.take()
        while True:
            connection = spare or await self._dialer.dial()
            try:
                return connection, await connection.send(request, self._limits.open_stream_seconds)
            except BaseException as error:
                connection.close()
                if connection is not spare or connection.gave_up or not isinstance(error, BackendUnreachable):
                    raise
                spare = None

    def _unpacker(self, head: Head) -> Unpacker | None:
        """What unpacks an event stream, None for a plain one. Raises when the answer is no event stream."""
        if head.status == 404:
            raise RunLost("the backend does not know the run")
        if head.status != 200:
            raise BackendRefused(head.status)
        kind = head.header(b"content-type").partition(";")[0].strip()
        if kind != _EVENT_STREAM:
            shown = kind if _MEDIA_TYPE.fullmatch(kind) else "something without a media type"
            raise BackendGarbage(f"the answer is not an event stream but {shown!r}")
        encoding = head.header(b"content-encoding")
        if encoding in PLAIN:
            return None
        if encoding not in PACKED:
            raise BackendGarbage(f"the encoding {encoding[:64]!r} of the event stream is not supported")
        if not self._warned:
            logger.warning("the backend compresses its event streams (%s): events may arrive late", encoding)
            self._warned = True
        return Unpacker(encoding)


class _counted:  # noqa: N801 - it is used as a statement
    """Counts a call of the backend by how it went; not when it was cancelled."""

    def __init__(self, call: str) -> None:
        self._call = call
        self._result = "ok"

    def refused(self) -> None:
        """It was answered, and nevertheless refused."""
        self._result = "refused"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        match error:
            case None:
                result = self._result
            case BackendRefused():
                result = "refused"
            case BackendUnreachable():
                result = "unreachable"
            case BackendError():
                result = "garbage"
            case _:
                return
        metrics.BACKEND_CALLS(self._call, result).inc()


def _refusal(answer: _Answer) -> BackendRefused:
    """The refusal, with what is safe of its body: one plain word, or where and how the request is wrong."""
    try:
        body = as_dict(read_json(answer.content))
    except UNREADABLE:
        body = as_dict(None)
    detail = body.get("detail")
    said = next(filter(None, map(plain_word, (detail, body.get("code"), body.get("error")))), "")
    return BackendRefused(answer.status, said, mistakes_in(as_list(detail)))


def _is_passing(error: BackendUnreachable | BackendRefused) -> bool:
    """Whether a stream that ended with this error is worth another try."""
    return isinstance(error, BackendUnreachable) or error.status >= 500 or error.status in PASSING


def _path(run_id: RunId) -> str:
    return f"runs/{quote(run_id, safe='')}"


def _run_id(answer: _Answer) -> RunId:
    try:
        created = msgspec.json.decode(answer.content, type=_Created)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Not chained: the error may quote the answer.
        raise BackendGarbage("the answer does not follow the run protocol") from None
    if not 0 < len(created.run_id) <= MAX_RUN_ID or clean_text(created.run_id) != created.run_id:
        raise BackendGarbage("the new run has no id")
    return RunId(created.run_id)
