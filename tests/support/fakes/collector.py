"""A collector of traces: OTLP over real HTTP, as OpenTelemetry's exporters speak it."""

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

KINDS = {trace_pb2.Span.SPAN_KIND_SERVER: "server", trace_pb2.Span.SPAN_KIND_CLIENT: "client"}


@dataclass(frozen=True)
class Kept:
    """One span as it arrived; ids are hexadecimal."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[tuple[str, str]]
    """Trace and span of each."""
    failed: bool
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]
    schema_url: str
    text: str = field(repr=False)
    """All of it, as text."""

    @property
    def parent(self) -> str:
        """What a `traceparent` says that names this span."""
        return f"{self.trace_id}-{self.span_id}"


class Collector:
    """A context manager; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT names."""

    def __init__(self) -> None:
        self.spans: list[Kept] = []
        """In the order of their arrival."""
        self.requests: list[dict[str, str]] = []
        """The headers of each request."""
        self.answers = 200
        """The status of every answer."""
        self.gate = threading.Event()
        """No answer is given before it is set."""
        self.gate.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append({name.lower(): value for name, value in self.headers.items()})
                collector.gate.wait(20)
                if collector.answers == 200:
                    assert self.path == "/v1/traces"
                    collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] else body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.answers)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *_: Any) -> None:  # noqa: A002 - its name there
                """Nothing is to be read."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, body: bytes) -> None:
        """Keep the spans of one request."""
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_kept(span, resource, scope.schema_url) for span in scope.spans]

    def of_kind(self, kind: str) -> list[Kept]:
        """The spans of requests (server) or of turns (client)."""
        return [span for span in list(self.spans) if span.kind == kind]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


def _kept(span: trace_pb2.Span, resource: dict[str, Any], schema_url: str) -> Kept:
    return Kept(
        name=span.name,
        kind=KINDS.get(span.kind, str(span.kind)),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=_values(span.attributes),
        resource=resource,
        schema_url=schema_url,
        text=f"{span}{resource}",
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, which) if which else None
