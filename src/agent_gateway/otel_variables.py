"""What the OTEL_* variables ask for. Values that the SDK would not use are refused.

Errors name the variable and never its value: headers and URLs may hold tokens.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from agent_gateway.errors import ConfigError

CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that asks for messages in spans."""

_PROTOCOL: Final = "http/protobuf"
_TRUE: Final = "true"
_SAMPLERS: Final = {
    f"{parent}{sampler}"
    for parent in ("", "parentbased_")
    for sampler in ("always_on", "always_off", "traceidratio")
}
_COMPRESSIONS: Final = {"none", "gzip", "deflate"}
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~\w-]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*", re.ASCII)
"""What the SDK takes for a header. Of others it logs the whole text, and goes on without them."""
_QUEUE, _BATCH = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_DEFAULT_QUEUE, _DEFAULT_BATCH = 2048, 512


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
    _check(environ)
    return True


def wants_content(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to hold what users wrote and agents answered."""
    return _lowered(environ, CONTENT) == _TRUE


def _check(environ: Mapping[str, str]) -> None:
    for names, is_right, wanted in _RULES:
        value, name = _first(environ, *names)
        if value and not is_right(value):
            raise ConfigError(f"{name}: it has to be {wanted}")
    queue, batch = _first(environ, _QUEUE)[0], _first(environ, _BATCH)[0]
    if int(batch or _DEFAULT_BATCH) > int(queue or _DEFAULT_QUEUE):
        raise ConfigError(f"{_QUEUE}: it has to be {_BATCH}, by default {_DEFAULT_BATCH}, or more")


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


def _are_headers(text: str) -> bool:
    return all(_HEADER.fullmatch(one.strip()) for one in text.split(",") if one.strip())


def _are_pairs(text: str) -> bool:
    return all("=" in one for one in text.split(",") if one.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_count(text: str) -> bool:
    try:
        return int(text) >= 0
    except ValueError:
        return False


def _is_positive(text: str) -> bool:
    return _is_count(text) and int(text) > 0


_RULES: Final[tuple[tuple[tuple[str, ...], Callable[[str], bool], str], ...]] = (
    (
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
        _are_headers,
        "name=value, with commas between several; other letters in a value are written as %XX",
    ),
    (
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        lambda text: 0 < _number(text) < math.inf,
        "a number of seconds above 0",
    ),
    (
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
        lambda text: text.lower() in _COMPRESSIONS,
        "none, gzip or deflate",
    ),
    (("OTEL_RESOURCE_ATTRIBUTES",), _are_pairs, "name=value, with commas between several"),
    (
        ("OTEL_TRACES_SAMPLER",),
        lambda text: text.lower() in _SAMPLERS,
        f"one of {', '.join(sorted(_SAMPLERS))}",
    ),
    (("OTEL_TRACES_SAMPLER_ARG",), lambda text: 0 <= _number(text) <= 1, "a number from 0 to 1"),
    *(
        ((name,), _is_positive, "a whole number above 0")
        for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", _QUEUE, _BATCH)
    ),
    *(
        ((f"OTEL_{name}_LIMIT",), _is_count, "a whole number from 0 on")
        for name in (
            *("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT"),
            *("SPAN_ATTRIBUTE_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH", "SPAN_EVENT_COUNT", "SPAN_LINK_COUNT"),
        )
    ),
)
"""Variables of which the first that is set counts, what its value has to be, and that in words."""
