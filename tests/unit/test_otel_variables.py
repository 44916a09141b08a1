"""Which variables switch traces on, and which of their values are refused."""

import pytest

from agent_gateway.errors import ConfigError
from agent_gateway.otel_variables import is_asked_for, wants_content

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OF_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
EXPORTER = "OTEL_TRACES_EXPORTER"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
URL = "http://collector:4318"
CANARY = "canary-of-the-coal-mine"


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
        ({ENDPOINT: URL, HEADERS: " Authorization=Basic%20YTpi==, x-tenant = a b,"}, True),
        ({ENDPOINT: URL, "OTEL_TRACES_SAMPLER": "TraceIdRatio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, True),
        ({ENDPOINT: URL, "OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}, True),
        ({ENDPOINT: URL, "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "0"}, True),
        ({ENDPOINT: URL, "OTEL_BSP_SCHEDULE_DELAY": "", "OTEL_SPAN_LINK_COUNT_LIMIT": ""}, True),
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
        ({ENDPOINT: URL, HEADERS: f"Authorization: Bearer {CANARY}"}, HEADERS),
        ({ENDPOINT: URL, HEADERS: f"a=b,{CANARY}"}, HEADERS),
        ({ENDPOINT: URL, HEADERS: f'a="{CANARY}"'}, HEADERS),
        (
            {ENDPOINT: URL, HEADERS: "a=b", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": CANARY},
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        ),
        *(
            ({ENDPOINT: URL, name: value}, name)
            for name, value in [
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "inf"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "br"),
                ("OTEL_RESOURCE_ATTRIBUTES", f"a=b,{CANARY}"),
                ("OTEL_TRACES_SAMPLER", "sometimes"),
                ("OTEL_TRACES_SAMPLER_ARG", "10%"),
                ("OTEL_TRACES_SAMPLER_ARG", "1.1"),
                ("OTEL_TRACES_SAMPLER_ARG", "nan"),
                ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "511"),
                ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"),
                ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1.5"),
            ]
        ),
        ({ENDPOINT: URL, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2049"}, "OTEL_BSP_MAX_QUEUE_SIZE"),
    ],
)
def test_what_there_is_not_is_refused_by_its_variable(variables: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: ") as refused:
        is_asked_for(variables)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "wanted"), [("true", True), ("TRUE", True), ("false", False), ("1", False)]
)
def test_messages_are_kept_only_when_that_is_said(value: str, wanted: bool) -> None:
    assert wants_content({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": value}) is wanted
    assert not wants_content({})
