"""Bounds the bytes of files in the history of a conversation, which every turn stores and sends again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic_ai.messages import (
    BinaryContent,
    FilePart,
    ModelMessage,
    ModelRequestPart,
    ModelResponsePart,
    TextContent,
    TextPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)

from agent_gateway.backend.embedded.agent.content import is_label, line_of, lines_for

MAX_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of all files in a history: those of users, and those that models and tools made."""

_DEPTH: Final = 20
"""How deep files are looked for in what a tool returned."""
_GONE: Final = "[A file was here. It is no longer part of the conversation.]"


def with_bounded_files(messages: Sequence[ModelMessage], room: int = MAX_KEPT_BYTES) -> list[ModelMessage]:
    """The messages with the newest files that fit into this room; of older ones only their lines stay."""
    keeper = _Keeper(room)
    return [keeper.kept(message) for message in reversed(messages)][::-1]


class _Keeper:
    """Takes the parts of a history from its end to its beginning, while there is room.

    What did not change is the same object as before.
    """

    def __init__(self, room: int) -> None:
        self._room = room

    def kept(self, message: ModelMessage) -> ModelMessage:
        """The message with the files for which there is room."""
        parts: list[Any] = [self._part(part) for part in reversed(message.parts)][::-1]
        return replace(message, parts=parts) if _differ(parts, message.parts) else message

    def _part(self, part: ModelRequestPart | ModelResponsePart) -> ModelRequestPart | ModelResponsePart:
        match part:
            case UserPromptPart(content=content) if not isinstance(content, str):
                gone = {id(item) for item in reversed(content) if self._has_no_room(_size(item))}
                kept = lines_for(content, lambda item: id(item) in gone, _GONE)
                return replace(part, content=kept) if gone else part
            case ToolReturnPart(content=content):
                kept = self._returned(content)
                return part if kept is content else replace(part, content=kept)
            case FilePart(content=BinaryContent(data=data)) if self._has_no_room(len(data)):
                return TextPart(_GONE)
            case _:
                return part

    def _returned(self, value: Any, depth: int = 0) -> Any:
        match value:
            case BinaryContent(data=data):
                return _GONE if self._has_no_room(len(data)) else value
            case list() if depth < _DEPTH:
                items = [self._returned(item, depth + 1) for item in reversed(value)][::-1]
                return items if _differ(items, value) else value
            case dict() if depth < _DEPTH:
                kept = {key: self._returned(item, depth + 1) for key, item in value.items()}
                return kept if _differ([*kept.values()], [*value.values()]) else value
            case _:
                return value

    def _has_no_room(self, size: int) -> bool:
        """Take so many bytes. What is older than the first file that does not fit goes as well."""
        if size > max(self._room, 0):
            self._room = 0
            return True
        self._room -= size
        return False


def _differ(new: Sequence[object], old: Sequence[object]) -> bool:
    return any(one is not other for one, other in zip(new, old, strict=True))


def _size(item: UserContent) -> int:
    match item:
        case BinaryContent(data=data):
            return len(data)
        case TextContent(content=text) if not is_label(item) and line_of(item) not in (None, text):
            return len(text.encode(errors="replace"))
        case _:
            return 0
