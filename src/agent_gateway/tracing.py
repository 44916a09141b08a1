"""Traces of requests and turns (docs/tracing.md). The standard OTEL_* variables alone switch them on.

While they are off, `tracer` is None, and nothing of what makes spans is imported (`spans.py`).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from agent_gateway.conditions import Condition
from agent_gateway.errors import ConfigError
from agent_gateway.otel_variables import is_asked_for, wants_content

if TYPE_CHECKING:
    from agent_gateway.spans import Tracer

EXTRA: Final = "agent-gateway[tracing]"
FLUSH_SECONDS: Final = 3.0
"""How long a process that stops waits for its last spans to be taken."""

tracer: "Tracer | None" = None
"""Begins the spans of this process; None while nothing is traced."""

logger = logging.getLogger(__name__)


def require() -> bool:
    """Whether traces are asked for. Raises ConfigError when this process could not make them."""
    if not is_asked_for():
        return False
    _opened(lambda _: None).close(FLUSH_SECONDS)
    return True


@asynccontextmanager
async def running() -> AsyncGenerator[None]:
    """While entered, this process traces if it is asked to. Enter it after a fork, not before.

    Raises ConfigError. Leaving waits up to FLUSH_SECONDS for the last spans.
    """
    global tracer  # noqa: PLW0603 - as with metrics: one for the process, asked for at each request
    if tracer is not None or not is_asked_for():
        yield
        return
    loop = asyncio.get_running_loop()
    lost = Condition(logger, "spans do not reach their collector")

    def told(why: str) -> None:
        if why or lost.holds:
            with suppress(RuntimeError):  # the loop has ended, and with it the log
                loop.call_soon_threadsafe(lambda: lost.met(why) if why else lost.passed())

    tracer = opened = _opened(told)
    try:
        yield
    finally:
        tracer = None
        # A collector that is away would only delay the end.
        await asyncio.to_thread(opened.close, 0.0 if lost.holds else FLUSH_SECONDS)


def _opened(told: Callable[[str], None]) -> "Tracer":
    try:
        from agent_gateway.spans import Tracer

        return Tracer(told, with_content=wants_content())
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the OTEL_* variables ask for traces, but {error.name} is not installed: "
            f"pip install '{EXTRA}', or set OTEL_TRACES_EXPORTER=none"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever the SDK does not take, its text may hold a token
        raise ConfigError(f"the OTEL_* variables cannot be used: {type(error).__name__}") from None
