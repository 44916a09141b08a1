"""Thoughts that a model writes into its text, as `<think>…</think>` before the answer.

The framework knows a tag only when it is a delta of its own. Servers put it together with other text, or cut
it in two; then the thoughts would be part of the answer.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager
from typing import Final, Self

from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta
from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIStreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

OPENING: Final = "<think>"
CLOSING: Final = "</think>"


class ThoughtTags(AbstractCapability[object]):
    """Gives the framework the tags of chat completions as deltas of their own."""

    # `typing.override` is newer than the oldest Python supported here.
    def get_wrapper_model(self, model: Model) -> Model | None:  # pyrefly: ignore[missing-override-decorator]
        """The model with such deltas, if it is one of chat completions."""
        if isinstance(model, FallbackModel):
            return FallbackModel(*(self.get_wrapper_model(one) or one for one in model.models))
        return _Tagged(model) if isinstance(model, OpenAIChatModel) else None


class TagSplitter:
    """Cuts the deltas of one text so that the tags around its first thoughts are pieces of their own.

    White space before and after the thoughts is left out. What comes after them, or a text that
    does not begin with them, stays as it is: people talk about tags.
    """

    def __init__(self) -> None:
        self._held = ""
        self._step = self._before

    def feed(self, delta: str) -> list[str]:
        """The pieces that are certain by now; the rest is held."""
        self._held += delta
        pieces: list[str] = []
        step = None
        while step != self._step:
            step = self._step
            step(pieces)
        return [piece for piece in pieces if piece]

    def rest(self) -> str:
        """What is held when the text ends."""
        rest, self._held = self._held, ""
        return rest

    def _before(self, pieces: list[str]) -> None:
        text = self._held.lstrip()
        if text.startswith(OPENING):
            pieces.append(OPENING)
            self._held, self._step = text.removeprefix(OPENING), self._thinking
        elif not OPENING.startswith(text):
            self._step = self._answering

    def _thinking(self, pieces: list[str]) -> None:
        thoughts, closing, rest = self._held.partition(CLOSING)
        if closing:
            pieces += [thoughts, closing]
            self._held, self._step = rest, self._after
        else:
            half = _beginning_at_end(thoughts)
            pieces.append(thoughts.removesuffix(half))
            self._held = half

    def _after(self, pieces: list[str]) -> None:
        self._held = self._held.lstrip()
        if self._held:
            self._step = self._answering

    def _answering(self, pieces: list[str]) -> None:
        pieces.append(self.rest())


class _Tagged(WrapperModel):
    # `typing.override` is newer than the oldest Python supported here.
    @asynccontextmanager
    async def request_stream(  # pyrefly: ignore[missing-override-decorator]
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[object] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        async with self.wrapped.request_stream(
            messages, model_settings, model_request_parameters, run_context
        ) as stream:
            if isinstance(stream, OpenAIStreamedResponse):
                # The framework's place for changes of chunks. It asks for a subclass: one for each provider.
                chunks = stream._validate_response  # noqa: SLF001
                stream._validate_response = lambda: _Apart(chunks())  # noqa: SLF001 # pyrefly: ignore[method-assign]
            yield stream


class _Apart:
    """Chunks with tags apart. No generator: the framework abandons it when a run is cancelled."""

    def __init__(self, chunks: AsyncIterable[ChatCompletionChunk]) -> None:
        self._chunks = aiter(chunks)
        self._splitter = TagSplitter()
        self._ready: deque[ChatCompletionChunk] = deque()
        self._last: ChatCompletionChunk | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        while not self._ready:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if not self._flush():
                    raise
            else:
                self._take(chunk)
        return self._ready.popleft()

    def _take(self, chunk: ChatCompletionChunk) -> None:
        choice = _choice(chunk)
        content = choice and choice.delta.content
        if choice is None or not isinstance(content, str) or not content:
            if choice is not None and (choice.finish_reason or choice.delta.tool_calls):
                self._flush()
            self._ready.append(chunk)
            return
        self._last = chunk
        pieces = self._splitter.feed(content)
        if pieces != [content]:
            self._ready += [_text_chunk(chunk, piece) for piece in pieces]
            choice.delta.content = None  # the rest of the chunk comes after its text
        self._ready.append(chunk)
        if choice.finish_reason:
            self._flush()

    def _flush(self) -> bool:
        rest = self._splitter.rest()
        if rest and self._last is not None:
            self._ready.append(_text_chunk(self._last, rest))
        return bool(rest)


def _choice(chunk: ChatCompletionChunk) -> Choice | None:
    """The choice with the text. What comes from the network may have any shape: the framework judges it."""
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Choice):
        return None
    return choices[0] if isinstance(choices[0].delta, ChoiceDelta) else None


def _text_chunk(like: ChatCompletionChunk, text: str) -> ChatCompletionChunk:
    choice = Choice(index=0, delta=ChoiceDelta(content=text), finish_reason=None)
    return like.model_copy(update={"choices": [choice], "usage": None})


def _beginning_at_end(text: str) -> str:
    """The longest end of the text with which a closing tag may begin."""
    lengths = range(min(len(text), len(CLOSING) - 1), 0, -1)
    return next((CLOSING[:length] for length in lengths if text.endswith(CLOSING[:length])), "")
