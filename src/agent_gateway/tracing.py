"""Traces of requests and turns (docs/tracing.md). The standard OTEL_* variables alone switch them on.

While they are off, `tracer` is None, and nothing of what makes spans is imported (`spans.py`).
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agent_gateway.conditions import Condition
from agent_gateway.errors import ConfigError

if TYPE_CHECKING:
    from agent_gateway.spans import Tracer

EXTRA: Final = "agent-gateway[tracing]"
FLUSH_SECONDS: Final = 3.0
"""How long a process that stops waits for its last spans to be taken."""
CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that asks for messages in spans."""

_PROTOCOL: Final = "http/protobuf"
_TRUE: Final = "true"

tracer: "Tracer | None" = None
"""Begins the spans of this process; None while nothing is traced."""

logger = logging.getLogger(__name__)


def is_asked_for(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether these variables ask for traces. Raises ConfigError when they ask for what there is not."""
    if _lowered(environ, "OTEL_SDK_DISABLED") == _TRUE:
        return False
    exporter = _lowered(environ, "OTEL_TRACES_EXPORTER")
    endpoint, source = _first(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if exporter == "none" or not (exporter or endpoint):
        return False
    if exporter not in {"", "otlp"}:
        raise ConfigError("OTEL_TRACES_EXPORTER: only otlp and none are known here")
    protocol, named = _first(environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {"", _PROTOCOL}:
        raise ConfigError(f"{named}: only {_PROTOCOL} is known here")
    if endpoint and not _is_url(endpoint):
        raise ConfigError(f"{source}: it has to be a URL with http or https")
    return True


def require() -> bool:
    """Whether traces are asked for. Raises ConfigError when this process cannot make them."""
    if not is_asked_for():
        return False
    try:
        import agent_gateway.spans  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the OTEL_* variables ask for traces, but {error.name} is not installed: "
            f"pip install '{EXTRA}', or set OTEL_TRACES_EXPORTER=none"
        ) from None
    return True


def wants_content(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to hold what users wrote and agents answered."""
    return _lowered(environ, CONTENT) == _TRUE


@asynccontextmanager
async def running() -> AsyncGenerator[None]:
    """While entered, this process traces if it is asked to. Enter it after a fork, not before.

    Raises ConfigError. Leaving waits up to FLUSH_SECONDS for the last spans.
    """
    global tracer  # noqa: PLW0603 - as with metrics: one for the process, asked for at each request
    if tracer is not None or not require():
        yield
        return
    from agent_gateway.spans import Tracer

    loop = asyncio.get_running_loop()
    lost = Condition(logger, "spans do not reach their collector")

    def told(why: str) -> None:
        if why or lost.holds:
            with suppress(RuntimeError):  # the loop has ended, and with it the log
                loop.call_soon_threadsafe(lambda: lost.met(why) if why else lost.passed())

    try:
        tracer = opened = Tracer(told, with_content=wants_content())
    except ValueError as error:
        raise ConfigError(f"the OTEL_* variables cannot be used: {error}") from None
    try:
        yield
    finally:
        tracer = None
        # A collector that is away would only delay the end.
        await asyncio.to_thread(opened.close, 0.0 if lost.holds else FLUSH_SECONDS)


def _lowered(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip().lower()


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """The value of the first of these variables that is set, and its name."""
    return next(((value, name) for name in names if (value := environ.get(name, "").strip())), ("", ""))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
