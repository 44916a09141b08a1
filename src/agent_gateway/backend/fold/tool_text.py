"""What is shown of a tool call: its name, and its arguments and result as text of a bounded length."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec

from agent_gateway.backend.lenient import as_str
from agent_gateway.domain.text import clean_json, clean_text

MAX_OBSERVATION: Final = 16_000
MAX_TOOL_INPUT: Final = 8_000
MAX_TOOL_NAME: Final = 256
"""Characters. Together they keep the line of one step under 512 KiB, however it is escaped."""

NESTED_TOO_DEEP: Final = "[nested too deep to be shown]"


def tool_name(part: Mapping[str, object]) -> str:
    """The clean name of the tool that a part of a message calls; empty when it has none."""
    return clean_text(as_str(part.get("tool_name")))[:MAX_TOOL_NAME]


def json_text(value: object) -> str:
    """Any JSON value as text: a string as it is, null as an empty text, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean_text(value)
    try:
        with suppress(UnicodeEncodeError):
            text = msgspec.json.encode(value).decode()
            if "\\u0000" not in text:
                return text
        return msgspec.json.encode(clean_json(value)).decode()
    except RecursionError:
        return NESTED_TOO_DEEP


def cut(text: str, most: int) -> str:
    """The text, or its first `most` characters and a note of how long it was."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… [cut: {len(text)} characters in all]"
