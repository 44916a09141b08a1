"""How spans are begun, and what is made of the lines of the SDK that makes them."""

import logging

import pytest

from agent_gateway.spans import Tracer, _context
from tests.support.log_lines import kept_lines

CANARY = "canary-of-the-coal-mine"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SDK = logging.getLogger("opentelemetry")


@pytest.mark.parametrize("version", ["00", "cc"])
def test_a_traceparent_names_a_place(version: str) -> None:
    place = _context(f"{version}-{TRACE}-{SPAN}-01")
    assert place is not None
    assert (place.trace_id, place.span_id, place.is_remote) == (int(TRACE, 16), int(SPAN, 16), True)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "00",
        f"{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{'x' * 32}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
def test_what_is_no_traceparent_is_no_parent_and_no_link(stored: str) -> None:
    """The row of a turn may be that of a newer release, and the turn is adopted nevertheless."""
    tracer = Tracer(lambda _: None, with_content=False)
    try:
        span = tracer.client_span("name", {}, parent=stored, link=stored)
        assert TRACE not in span.traceparent
        assert (span._recorded.parent, list(span._recorded.links)) == (None, [])  # type: ignore[attr-defined]
    finally:
        tracer.close(5)


def test_what_the_sdk_says_is_told_without_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first moment on: it logs headers that it does not understand while it is made."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"Authorization: Bearer {CANARY}")
    lost: list[str] = []
    with kept_lines("") as lines:
        tracer = Tracer(lost.append, with_content=False)
        logging.getLogger("opentelemetry.sdk.trace").warning("odd: %s", CANARY)
        tracer.close(5)
    assert [(line["level"], line["logger"]) for line in lines] == [("debug", "agent_gateway.spans")] * 2
    assert CANARY not in str(lines)
    assert lost == []
    assert (SDK.handlers, SDK.propagate) == ([], True)


def test_a_tracer_that_cannot_be_made_leaves_the_log_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    with pytest.raises(ValueError, match="max_export_batch_size"):
        Tracer(lambda _: None, with_content=False)
    assert (SDK.handlers, SDK.propagate) == ([], True)
