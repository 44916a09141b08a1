"""Estimates how many tokens texts are, without a tokenizer: those differ, and some fetch their tables."""

import json
from collections.abc import Iterable
from typing import Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequestPart,
    ModelResponsePart,
    TextContent,
    ToolCallPart,
    UserPromptPart,
)

BYTES: Final = 4
"""Bytes of UTF-8 in one token, about: right for English, and near for most other languages."""
FILE: Final = 1000
"""Tokens of an image or another file, about."""


def about_tokens(messages: Iterable[ModelMessage]) -> int:
    """About how many tokens these messages are."""
    return tokens_in(sum(bytes_in(part) for message in messages for part in message.parts))


def tokens_in(size: int) -> int:
    """About how many tokens this many bytes of text are."""
    return -(-size // BYTES)


def bytes_in(part: ModelRequestPart | ModelResponsePart) -> int:
    """The length of what a part says, in bytes of UTF-8. A file counts as a fixed length."""
    match part:
        case UserPromptPart(content=content) if not isinstance(content, str):
            return sum(_length(item.content if isinstance(item, TextContent) else item) for item in content)
        case ToolCallPart(tool_name=name, args=args):
            return _length(name) + _length(args)
        case _:
            return _length(getattr(part, "content", None))


def _length(said: object) -> int:
    if said is None:
        return 0
    text = said if isinstance(said, str) else json.dumps(said, default=_file)
    return len(text.encode(errors="replace"))


def _file(_: object) -> str:
    return "." * (FILE * BYTES)
