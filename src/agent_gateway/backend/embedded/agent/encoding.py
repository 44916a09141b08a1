"""Writes events and messages of the agent framework as JSON, whatever a model said.

A provider may cut a character between two of its deltas. UTF-8 cannot encode the halves, and the framework's
own writer refuses them.
"""

import json
from typing import TypeVar

import msgspec
from pydantic import TypeAdapter
from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_core import PydanticSerializationError

from agent_gateway.domain.text import clean_json

T = TypeVar("T")


def event_json(adapter: TypeAdapter[T], event: T) -> bytes:
    """An event as JSON. Halves are kept and escaped; the reader of the events puts them together."""
    try:
        return adapter.dump_json(event)
    except PydanticSerializationError:
        return json.dumps(adapter.dump_python(event, mode="json"), separators=(",", ":")).encode()


def delta_json(delta: str | None) -> bytes:
    """A text delta, or null, as JSON. Halves are kept and escaped."""
    try:
        return msgspec.json.encode(delta)
    except UnicodeEncodeError:
        return json.dumps(delta).encode()


def messages_json(messages: list[ModelMessage]) -> bytes:
    """Messages as JSON. Halves that belong together become one character, others U+FFFD."""
    try:
        return ModelMessagesTypeAdapter.dump_json(messages)
    except PydanticSerializationError:
        plain = ModelMessagesTypeAdapter.dump_python(messages, mode="json")
        return msgspec.json.encode(clean_json(plain))


class WholeCharacters(AbstractCapability[object]):
    """Puts the output of a model into whole characters before tools, history and model get it."""

    # `typing.override` is newer than the oldest Python supported here.
    async def after_model_request(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """The response with whole characters."""
        try:
            ModelMessagesTypeAdapter.dump_json([response])
        except PydanticSerializationError:
            [mended] = ModelMessagesTypeAdapter.validate_json(messages_json([response]))
            assert isinstance(mended, ModelResponse)
            return mended
        return response
