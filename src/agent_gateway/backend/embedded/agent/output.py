"""Structured output: the model is made to answer with JSON that fits the schema of the app."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic_ai import NativeOutput, PromptedOutput, RunContext, StructuredDict, ToolOutput
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.messages import (
    AgentStreamEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.output import OutputContext, OutputSpec

from agent_gateway.backend.embedded.layers import OutputConfig
from agent_gateway.backend.embedded.schemas import misfits
from agent_gateway.backend.fold.translate import OUTPUT_TOOL
from agent_gateway.json_types import JsonObject


@dataclass
class FitsSchema(AbstractCapability[object]):
    """Refuses an answer that does not fit: the framework checks only that it is an object."""

    schema: JsonObject

    async def after_output_validate(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], *, output_context: OutputContext, output: Any
    ) -> Any:
        """The output. Raises ModelRetry with what does not fit in it."""
        if isinstance(output, dict) and (found := misfits(self.schema, output)):
            raise ModelRetry("The answer does not fit its JSON Schema:\n" + "\n".join(found))
        return output


def output_of(config: OutputConfig) -> OutputSpec[JsonObject]:
    """What the framework is told about the answer."""
    # It writes the name and the description into the schema.
    schema = json.loads(json.dumps(config.json_schema))
    shape = StructuredDict(schema, name=config.name, description=config.description)
    match config.mode:
        case "tool":
            return ToolOutput(shape, name=OUTPUT_TOOL, max_retries=config.max_retries)
        case "native":
            return NativeOutput(shape)
        case "prompted":
            return PromptedOutput(shape)


def is_text(event: AgentStreamEvent) -> bool:
    """Whether an event is about text, which with structured output is no answer that was checked."""
    match event:
        case PartStartEvent(part=TextPart()) | PartEndEvent(part=TextPart()):
            return True
        case PartDeltaEvent(delta=TextPartDelta()):
            return True
        case _:
            return False
