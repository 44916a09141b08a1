"""Spans, made and sent by OpenTelemetry: the only module that imports it, and only while something is traced.

Spans are sent by a thread of their own, over OTLP with HTTP. What it cannot send is dropped.
"""

import logging
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

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value]


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

        Raises ValueError for variables that the SDK does not take.
        """
        self.with_content = with_content
        """Whether spans are to hold messages."""
        self._lines = _Lines(on_sent)
        self._logger = logging.getLogger("opentelemetry")
        resource = Resource.create({SERVICE_NAME: SERVICE, "service.version": version("agent-gateway")})
        # What the environment says comes last: it wins.
        resource = resource.merge(OTELResourceDetector().detect())
        # Never the global provider: libraries would send spans of their own, with texts.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(on_sent)))
        self._tracer = self._provider.get_tracer("agent_gateway", version("agent-gateway"), SCHEMA_URL)
        self._logger.addHandler(self._lines)
        self._logger.propagate = False

    def server_span(self, name: str, attributes: Attributes, *, parent: str) -> Span:
        """Begin the span of a request, in the trace of this `traceparent` or in a new one."""
        return self._begin(name, SpanKind.SERVER, attributes, parent, ())

    def client_span(self, name: str, attributes: Attributes, *, parent: str, link: str = "") -> Span:
        """Begin the span of a call of an agent; `link` is the `traceparent` of a span that it continues."""
        links = [Link(_context(link), {"agent_gateway.link": "adopted"})] if link else ()
        return self._begin(name, SpanKind.CLIENT, attributes, parent, links)

    def _begin(
        self, name: str, kind: SpanKind, attributes: Attributes, parent: str, links: Sequence[Link]
    ) -> Span:
        context = set_span_in_context(NonRecordingSpan(_context(parent)), Context()) if parent else Context()
        return Span(self._tracer.start_span(name, context, kind, dict(attributes), links))

    def close(self, seconds: float) -> None:
        """Send what is left, for so long at most; the rest is lost."""
        # The SDK has no bound of its own that can be set, and waits up to 30 seconds.
        closing = threading.Thread(target=self._shut_down, name="last spans", daemon=True)
        closing.start()
        closing.join(seconds)

    def _shut_down(self) -> None:
        self._provider.shutdown()
        # Until now the exporter may log its attempts, with the URL.
        self._logger.removeHandler(self._lines)
        self._logger.propagate = not self._logger.handlers


def reach_collector() -> str:
    """Send no spans to the collector; why it does not take them, or an empty text."""
    told: list[str] = []
    exporter = _Exporter(told.append)
    exporter.export(())
    exporter.shutdown()
    return told[0]


def _context(traceparent: str) -> SpanContext:
    """The context that a well-formed `traceparent` names."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))


class _Answers(Session):
    """Remembers how the collector answered last: the exporter only says that it failed."""

    last = ""

    @override
    def send(self, request: PreparedRequest, **options: Any) -> Response:
        try:
            response = super().send(request, **options)
        except Exception as error:
            # Its text has the URL, which may hold a token.
            self.last = type(error).__name__
            raise
        self.last = f"it answers {response.status_code}"
        return response


class _Exporter(OTLPSpanExporter):
    """Tells of every batch whether it arrived."""

    def __init__(self, on_sent: Callable[[str], None]) -> None:
        self._answers = _Answers()
        self._on_sent = on_sent
        super().__init__(session=self._answers)

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._answers.last = "they cannot be sent"
        result = super().export(spans)
        self._on_sent("" if result is SpanExportResult.SUCCESS else self._answers.last)
        return result


class _Lines(logging.Handler):
    """Takes the lines of the SDK, which has one for each attempt and each lost span."""

    def __init__(self, on_sent: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_sent = on_sent

    @override
    def emit(self, record: logging.LogRecord) -> None:
        # The exporter's own failures are told as a whole, when it has given up.
        if not record.name.startswith("opentelemetry.exporter"):
            self._on_sent(record.getMessage())
