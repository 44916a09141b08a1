"""The shapes of streamed events, for the OpenAPI document alone: frames are made by payloads.py."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, RootModel

from agent_gateway.routes.schemas import Metadata


class StreamEvent(BaseModel):
    """What every event of a stream carries."""

    conversation_id: str
    message_id: str
    created_at: int
    task_id: str
    event_id: int = Field(description="Position of the event in its turn: grows, may skip.")


class MessageEvent(StreamEvent):
    """A piece of the answer."""

    event: Literal["message"]
    id: str
    answer: str
    from_variable_selector: list[str] | None = None


class AgentMessageEvent(StreamEvent):
    """A piece of the answer in the modes agent-chat and agent."""

    event: Literal["agent_message"]
    id: str
    answer: str


class AgentThoughtEvent(StreamEvent):
    """A reasoning or tool step was opened, grew or got its result; always the whole step."""

    event: Literal["agent_thought"]
    id: str
    position: int = Field(description="1, 2, 3 … in the order the steps were opened.")
    thought: str
    tool: str
    tool_labels: dict[str, Any]
    tool_input: str
    observation: str
    message_files: list[str]


class MessageReplaceEvent(StreamEvent):
    """The answer so far is replaced by this text; later pieces append to it."""

    event: Literal["message_replace"]
    answer: str
    reason: str


class MessageEndEvent(StreamEvent):
    """The answer is complete and stored; ends the stream."""

    event: Literal["message_end"]
    id: str
    metadata: Metadata
    files: list[dict[str, Any]]


class ErrorEvent(StreamEvent):
    """The turn failed; ends the stream."""

    event: Literal["error"]
    status: int
    code: str
    message: str


class ChatStreamEvent(
    RootModel[
        Annotated[
            MessageEvent
            | AgentMessageEvent
            | AgentThoughtEvent
            | MessageReplaceEvent
            | MessageEndEvent
            | ErrorEvent,
            Field(discriminator="event"),
        ]
    ]
):
    """The JSON of one `data:` line; `event` tells which. Lines `event: ping` carry no data."""


EVENT_STREAM: dict[str, Any] = {
    "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ChatStreamEvent"}}}
}
