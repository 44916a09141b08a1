"""What the agent framework holds, as JSON, whatever a model said.

A provider may cut a character between two of its deltas. Its halves then are no UTF-8, and the framework's
own writer refuses them.
"""

import json
from typing import TypeVar

import msgspec
from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter
from pydantic_core import PydanticSerializationError

from agent_gateway.domain import clean_json

T = TypeVar("T")


def event_json(adapter: TypeAdapter[T], event: T) -> bytes:
    """An event as JSON; halves are kept and escaped, for who reads the events puts them together."""
    try:
        return adapter.dump_json(event)
    except PydanticSerializationError:
        return json.dumps(adapter.dump_python(event, mode="json"), separators=(",", ":")).encode()


def delta_json(delta: str | None) -> bytes:
    """A text delta, or none, as JSON; halves are kept and escaped."""
    try:
        return msgspec.json.encode(delta)
    except UnicodeEncodeError:
        return json.dumps(delta).encode()


def messages_json(messages: list[ModelMessage]) -> bytes:
    """Messages as JSON; halves that belong together are one character, others U+FFFD."""
    try:
        return ModelMessagesTypeAdapter.dump_json(messages)
    except PydanticSerializationError:
        plain = ModelMessagesTypeAdapter.dump_python(messages, mode="json")
        return msgspec.json.encode(clean_json(plain))


def mended(messages: list[ModelMessage]) -> list[ModelMessage]:
    """The same messages as they can be sent to a model again."""
    try:
        ModelMessagesTypeAdapter.dump_json(messages)
    except PydanticSerializationError:
        return ModelMessagesTypeAdapter.validate_json(messages_json(messages))
    return messages
