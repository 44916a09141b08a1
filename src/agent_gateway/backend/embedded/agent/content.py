"""Turns files of a message into content for a model, and decides which of it a model gets.

The history keeps the content of all files, up to a bound. A request has what the model at hand takes; of
every other file it has the line that describes it. So another model may be chosen in the middle of a
conversation.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    TextContent,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.models.wrapper import WrapperModel

from agent_gateway.backend.embedded.prompt_files import PromptFile
from agent_gateway.filetypes import PDF, is_text

_LINE: Final = "line"
"""Key of the metadata of a text that stands for a file, or stands before one: its line."""
_BEFORE: Final = "before"
"""Key of that metadata which says that the file itself is the next content."""
_NOT_TAKEN: Final = "A file that this model does not take."
_BACKTICKS: Final = re.compile("`{3,}")
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_PASS_URLS_ON: Final = frozenset(
    {
        "OpenAIChatModel",
        "OpenAIResponsesModel",
        "AnthropicModel",
        "MistralModel",
        "GroqModel",
        "HuggingFaceModel",
        "XaiModel",
        "FunctionModel",
        "TestModel",
    }
)
"""Classes of models that give the URL of an image to their provider. The others fetch it themselves, and no
process of ours fetches what a client names."""


def prompt_content(texts: Sequence[str], files: Sequence[PromptFile]) -> str | list[UserContent]:
    """The user's words and files as the framework takes them: one text, or a list of contents."""
    if len(texts) == 1 and not files:
        return texts[0]
    # Some providers refuse a blank text beside others.
    said = [text for text in texts if text.strip()] if files else texts
    return [*said, *(item for file in files for item in _contents(file))]


def line_of(item: UserContent) -> str | None:
    """The line of the file that a text of a prompt stands for, or stands before; None for other content."""
    match item:
        case TextContent(metadata={"line": str(line)}):
            return line
        case _:
            return None


def _contents(file: PromptFile) -> Iterator[UserContent]:
    if file.data is None and not file.url:
        yield TextContent(file.line, metadata={_LINE: file.line})
    elif file.data is None:
        yield _label(file)
        yield ImageUrl(url=file.url, media_type=file.mime_type)
    elif file.mime_type == PDF or (file.mime_type.startswith("image/") and not is_text(file.mime_type)):
        yield _label(file)
        yield BinaryContent(data=file.data, media_type=file.mime_type)
    else:
        text = _decoded(file.data)
        shown = file.line if text is None else f"{_told(file)}\n{_fenced(text)}"
        yield TextContent(shown, metadata={_LINE: file.line})


def _label(file: PromptFile) -> TextContent:
    return TextContent(_told(file), metadata={_LINE: file.line, _BEFORE: True})


def is_label(item: UserContent) -> bool:
    """Whether a text of a prompt only names the file that is the next content."""
    match item:
        case TextContent(metadata={"before": True}):
            return True
        case _:
            return False


def _told(file: PromptFile) -> str:
    return f'The file "{file.name}" ({file.mime_type}):' if file.name else f"A file ({file.mime_type}):"


def _decoded(data: bytes) -> str | None:
    """The text in these bytes; None when they are no text."""
    try:
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _fenced(text: str) -> str:
    """The text between fences that are longer than any in it, so that it cannot end its block."""
    fence = "`" * max([3, *(len(run) + 1 for run in _BACKTICKS.findall(text))])
    return f"{fence}\n{text}\n{fence}"


class TakenFiles(AbstractCapability[object]):
    """Puts the line of a file in its place where the model of a request does not take its content."""

    # `typing.override` is newer than the oldest Python supported here.
    async def prepare_model_request(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """The request with the files that its model takes. The history keeps all of them."""
        takes = _taker(request_context.model)
        messages = [_with_lines(message, takes) for message in request_context.messages]
        return replace(request_context, messages=messages)


def answers_with_images(model: object) -> bool:
    """Whether the answer of this model may be an image alone.

    The models of the responses API make images with a tool, and say something as well. To allow an image as
    the answer would switch that tool on.
    """
    if not isinstance(model, Model) or isinstance(model, (FallbackModel, OpenAIResponsesModel)):
        return False
    return model.profile.get("supports_image_output", False)


def _taker(model: Model) -> Callable[[UserContent], bool]:
    """Tells whether this model takes a content, as far as its profile knows."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    if isinstance(model, FallbackModel):
        # Which of its models will answer is not known.
        takers = [_taker(one) for one in model.models]
        return lambda item: all(takes(item) for takes in takers)
    profile = model.profile
    images = profile.get("supports_image_input", True)
    pdfs = profile.get("supports_document_input", True) and PDF in profile.get(
        "supported_document_media_types", {PDF}
    )
    urls = images and any(kind.__name__ in _PASS_URLS_ON for kind in type(model).__mro__)

    def takes(item: UserContent) -> bool:
        match item:
            case ImageUrl():
                return urls
            case BinaryContent(is_image=True):
                return images
            case BinaryContent(media_type=media_type):
                return pdfs or media_type != PDF
            case _:
                return True

    return takes


def _with_lines(message: ModelMessage, takes: Callable[[UserContent], bool]) -> ModelMessage:
    if not isinstance(message, ModelRequest):
        return message
    parts: list[ModelRequestPart] = []
    for part in message.parts:
        match part:
            case UserPromptPart(content=list(content)) if not all(map(takes, content)):
                parts.append(replace(part, content=lines_for(content, lambda item: not takes(item))))
            case _:
                parts.append(part)
    return replace(message, parts=parts)


def lines_for(
    content: Sequence[UserContent], is_left_out: Callable[[UserContent], bool], otherwise: str = _NOT_TAKEN
) -> list[UserContent]:
    """The contents of a prompt with the lines of those that are left out, or this text if they have none."""
    kept: list[UserContent] = []
    for item in content:
        if not is_left_out(item):
            kept.append(item)
            continue
        is_labelled = bool(kept) and is_label(kept[-1])
        line = line_of(kept.pop() if is_labelled else item)
        kept.append(otherwise if line is None else TextContent(line, metadata={_LINE: line}))
    return kept
