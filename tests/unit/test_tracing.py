"""Which variables switch traces on."""

import pytest

from agent_gateway.errors import ConfigError
from agent_gateway.tracing import is_asked_for, wants_content

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OF_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
EXPORTER = "OTEL_TRACES_EXPORTER"
URL = "http://collector:4318"


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({EXPORTER: "", ENDPOINT: " "}, False),
        ({EXPORTER: "otlp"}, True),
        ({EXPORTER: " OTLP "}, True),
        ({ENDPOINT: URL}, True),
        ({OF_TRACES: f"{URL}/v1/traces"}, True),
        ({ENDPOINT: URL, EXPORTER: "none"}, False),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "True"}, False),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "false"}, True),
        ({EXPORTER: "zipkin", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "front"}, False),
        ({ENDPOINT: URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        # The variable for traces wins over that for all signals.
        (
            {
                ENDPOINT: URL,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            True,
        ),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], asked: bool) -> None:
    assert is_asked_for(variables) is asked


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({EXPORTER: "otlp,console"}, EXPORTER),
        ({EXPORTER: "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (
            {ENDPOINT: URL, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        ),
        ({ENDPOINT: "collector:4318"}, ENDPOINT),
        ({ENDPOINT: URL, OF_TRACES: "http://[oops"}, OF_TRACES),
        ({OF_TRACES: "ftp://collector"}, OF_TRACES),
    ],
)
def test_what_there_is_not_is_refused_by_its_variable(variables: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: "):
        is_asked_for(variables)


@pytest.mark.parametrize(
    ("value", "wanted"), [("true", True), ("TRUE", True), ("false", False), ("1", False)]
)
def test_messages_are_kept_only_when_that_is_said(value: str, wanted: bool) -> None:
    assert wants_content({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": value}) is wanted
    assert not wants_content({})
