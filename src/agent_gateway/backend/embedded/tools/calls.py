"""What a call of a tool may do: fail, take long, return much. None of that ends the turn.

The model is told what went wrong, so that it can do something else. What a foreign server or function says
goes to the model alone: neither the log nor the error of a turn repeats it.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import BinaryContent, ToolReturn
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset
from pydantic_core import PydanticSerializationError, to_json

logger = logging.getLogger(__name__)

MAX_RESULT: Final = 100_000
"""Characters of one result that the model gets."""
MAX_ERROR: Final = 2_000
"""Characters of an error that the model gets."""
MAX_FILE: Final = 8 * 1024 * 1024
"""Bytes of one file that a tool returns."""
MAX_ITEMS: Final = 100
"""Parts of one result that has files."""
RETRIES: Final = 3
"""How often a model may repeat a call whose arguments do not fit."""


def _nothing() -> None:
    pass


@dataclass
class BoundedToolset(WrapperToolset[object]):
    """Calls the tools of another toolset; whatever happens, the model gets a result of bounded size."""

    source: str
    """What has the tools, in words for the model and for operators."""
    seconds: float
    """How long a call may take."""
    on_lost: Callable[[], None] = _nothing
    """Called when a call got no answer: whatever was asked may be broken."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[object], tool: ToolsetTool[object]
    ) -> Any:
        """Call the tool. Raises ToolFailed, whose text is for the model, or what a human has to decide."""
        time = asyncio.timeout(self.seconds)
        try:
            async with time:
                return bounded(await self.wrapped.call_tool(name, tool_args, ctx, tool))
        except (ModelRetry, ToolFailed) as error:
            raise ToolFailed(cut(error.message, MAX_ERROR)) from None
        except ApprovalRequired:
            raise
        except CallDeferred:
            raise ToolFailed("The tool wants to wait for something, which is not possible here.") from None
        except Exception as error:  # noqa: BLE001 - a tool may raise anything, and the turn goes on
            self.on_lost()
            if time.expired():
                raise ToolFailed(f"The call was given up after {self.seconds:g} seconds.") from None
            kind = type(error).__name__
            logger.warning("%s failed: %s at %s", self.source, kind, _place(error))
            raise ToolFailed(f"The tool failed ({kind}).") from None


def bounded(result: Any) -> Any:
    """A result of a size that a model can take. What is left out, it is told."""
    match result:
        case ToolReturn():
            content = result.content
            several = content if content is None or isinstance(content, str) else list(content)[:MAX_ITEMS]
            return replace(result, return_value=bounded(result.return_value), content=_bounded_parts(several))
        case BinaryContent() | bytes():
            return _bounded_file(result)
        case list() if any(isinstance(item, BinaryContent | bytes) for item in result):
            return _bounded_parts(result[:MAX_ITEMS])
        case _:
            return _bounded_data(result)


def _bounded_parts(parts: Any) -> Any:
    return [bounded(part) for part in parts] if isinstance(parts, list) else _bounded_data(parts)


def _bounded_file(file: BinaryContent | bytes) -> BinaryContent | str:
    found = BinaryContent(file, media_type="application/octet-stream") if isinstance(file, bytes) else file
    return found if len(found.data) <= MAX_FILE else f"(a file of {len(found.data)} bytes, which is too big)"


def _bounded_data(data: Any) -> Any:
    if data is None or isinstance(data, str):
        return data and cut(data, MAX_RESULT)
    try:
        text = to_json(data)
    except (PydanticSerializationError, ValueError):
        return cut(str(data), MAX_RESULT)
    return data if len(text) <= MAX_RESULT else cut(text.decode(errors="replace"), MAX_RESULT)


def cut(text: str, most: int) -> str:
    """The beginning of a text, with a note of how much is missing."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters are left out)"


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
