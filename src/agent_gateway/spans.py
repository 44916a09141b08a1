"""Spans, made and sent by OpenTelemetry: the only module that imports it, and only while something is traced.

Spans are sent by a thread of their own, over OTLP with HTTP. What it cannot send is dropped.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as Recorded
from requests import PreparedRequest, Response, Session
from typing_extensions import override

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
"""The version of the semantic conventions for HTTP and GenAI, by which spans and attributes are named."""
SERVICE: Final = "agent-gateway"
"""The name of the service when OTEL_SERVICE_NAME does not give another."""
REACH_SECONDS: Final = 5.0
"""How long a collector that is only asked may take."""

_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_QUEUE: Final = "opentelemetry.sdk._shared_internal"
"""Logs at WARNING only that spans are lost: its queue is full, or their sending raised an error."""

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]

logger = logging.getLogger(__name__)


class Span:
    """One span. It is sent once it has ended, and never before."""

    __slots__ = ("_recorded",)

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded

    @property
    def traceparent(self) -> str:
        """Its place in its trace (W3C Trace Context), for those who continue it."""
        context = self._recorded.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def set(self, attributes: Attributes) -> None:
        """It has these attributes, too."""
        self._recorded.set_attributes(attributes)

    def end(self, attributes: Attributes, *, name: str = "", error: str = "") -> None:
        """It ends now. `error` is the code of what went wrong, if something did."""
        recorded = self._recorded
        if recorded.is_recording():
            recorded.set_attributes(attributes)
            if name:
                recorded.update_name(name)
            if error:
                recorded.set_attribute("error.type", error)
                recorded.set_status(Status(StatusCode.ERROR))
        recorded.end()


class Tracer:
    """Begins the spans of a process, and has them sent."""

    def __init__(self, on_sent: Callable[[str], None], *, with_content: bool) -> None:
        """`on_sent` gets why spans were lost, or an empty text when some arrived; from any thread.

        Raises what the SDK raises for variables that it does not take.
        """
        self.with_content = with_content
        """Whether spans are to hold messages."""
        # Before anything of the SDK is made: it logs what it does not understand, as headers with a token.
        self._lines = _Lines(on_sent)
        self._lines.take()
        try:
            resource = Resource.create({SERVICE_NAME: SERVICE, "service.version": version("agent-gateway")})
            # What the environment says comes last: it wins.
            resource = resource.merge(OTELResourceDetector().detect())
            # Never the global provider: libraries would send spans of their own, with texts.
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._exporter = _Exporter(on_sent)
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except BaseException:
            self._lines.leave()
            raise
        self._tracer = self._provider.get_tracer("agent_gateway", version("agent-gateway"), SCHEMA_URL)

    def server_span(self, name: str, attributes: Attributes, *, parent: str) -> Span:
        """Begin the span of a request, in the trace of this `traceparent` or in a new one."""
        return self._begin(name, SpanKind.SERVER, attributes, parent, ())

    def client_span(self, name: str, attributes: Attributes, *, parent: str, link: str = "") -> Span:
        """Begin the span of a call of an agent; `link` is the `traceparent` of where it was begun."""
        begun = _context(link)
        links = () if begun is None else [Link(begun, {"agent_gateway.link": "begun"})]
        return self._begin(name, SpanKind.CLIENT, attributes, parent, links)

    def _begin(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: str, links: Sequence[Link]
    ) -> Span:
        above, context = _context(parent), Context()
        if above is not None:
            context = set_span_in_context(NonRecordingSpan(above), context)
        return Span(self._tracer.start_span(name, context, kind, dict(attributes), links))

    def close(self, seconds: float) -> None:
        """Send what is left, for so long at most; the rest is lost."""
        # The SDK has no bound of its own that can be set, and waits up to 30 seconds.
        closing = threading.Thread(target=self._shut_down, name="last spans", daemon=True)
        closing.start()
        closing.join(seconds)

    def _shut_down(self) -> None:
        self._provider.shutdown()
        # An attempt that is still on its way would be logged, with the URL.
        with self._exporter.sending:
            self._lines.leave()


def reach_collector() -> str:
    """Send no spans to the collector, once; why it does not take them, or an empty text."""
    told: list[str] = []
    try:
        _Exporter(told.append, once=True).export(())
    except Exception as error:  # noqa: BLE001 - its text may have the URL, which may hold a token
        return type(error).__name__
    return told[-1]


def _context(traceparent: str) -> SpanContext | None:
    """The context that a `traceparent` names; None for none, and for what is not understood here."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(trace_id, span_id, True, TraceFlags(flags))
    return context if context.is_valid else None


class _Answers(Session):
    """Remembers how the collector answered last: the exporter only says that it failed."""

    def __init__(self, on_answer: Callable[[], None]) -> None:
        super().__init__()
        self._on_answer = on_answer
        self.last = ""
        """Why spans were not taken; empty when they were."""

    @override
    def send(self, request: PreparedRequest, **options: Any) -> Response:
        try:
            response = super().send(request, **options | {"allow_redirects": False})
        except Exception as error:
            # Its text has the URL, which may hold a token.
            self.last = type(error).__name__
            raise
        finally:
            self._on_answer()
        # The exporter takes a redirect for a success, without following it.
        taken = 200 <= response.status_code < 300
        self.last = "" if taken else f"it answers {response.status_code}"
        return response


class _Exporter(OTLPSpanExporter):
    """Tells of every batch whether it arrived."""

    def __init__(self, on_sent: Callable[[str], None], *, once: bool = False) -> None:
        """`once`: it has REACH_SECONDS, and does not try again after a pause."""
        self._on_sent = on_sent
        # The exporter has no option for that. One that was shut down gives up after its first failure.
        self._answers = _Answers(self.shutdown if once else lambda: None)
        self.sending = threading.Lock()
        """Held while a batch is on its way."""
        super().__init__(session=self._answers, timeout=REACH_SECONDS if once else None)

    @override
    def shutdown(self) -> None:
        if not self._shutdown:
            super().shutdown()

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self.sending:
            self._answers.last = "they cannot be sent"
            super().export(spans)
            why = self._answers.last
        self._on_sent(why)
        return SpanExportResult.FAILURE if why else SpanExportResult.SUCCESS


class _Lines(logging.Handler):
    """Takes the lines of the SDK, which has one for each attempt and each lost span."""

    def __init__(self, on_sent: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_sent = on_sent
        self._logger = logging.getLogger("opentelemetry")

    def take(self) -> None:
        """From now on, nobody else gets them."""
        self._logger.addHandler(self)
        self._logger.propagate = False

    def leave(self) -> None:
        """Give them back, unless another one takes them."""
        self._logger.removeHandler(self)
        self._logger.propagate = not any(isinstance(one, _Lines) for one in self._logger.handlers)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        if record.name == _QUEUE:
            self._on_sent(kind.__name__ if kind else "too many wait to be sent")
            return
        # Only the template of the text: its values may be headers, and URLs with tokens.
        template = record.msg if record.args else "(a line without values)"
        logger.debug("%s: %s", record.name, template)
