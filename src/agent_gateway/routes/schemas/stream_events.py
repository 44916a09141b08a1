"""The shapes of streamed events, for the OpenAPI document alone: streams/frames.py makes the frames."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, RootModel

from agent_gateway.filetypes import FileType
from agent_gateway.routes.schemas.base import (
    Metadata,
    Observation,
    StepPosition,
    Thought,
    ToolInput,
    ToolName,
    UnixTime,
)
from agent_gateway.routes.schemas.files import MessageFileItem
from agent_gateway.routes.schemas.human_input import FormSubmission, FormTimeout, HumanInputForm

MessageId = Annotated[str, Field(description="The same as `message_id`.")]
AskingMessageId = Annotated[str, Field(description="The message that asks, in whichever turn this is told.")]
AnswerPiece = Annotated[str, Field(description="Text that follows what was sent before.")]


class StreamEvent(BaseModel):
    """What every event of a stream carries."""

    conversation_id: str = Field(description="The same in all events of a stream.")
    message_id: str = Field(description="The same in all events of a stream.")
    created_at: UnixTime
    task_id: str = Field(description="The turn, to stop it or to follow it.")
    event_id: int = Field(
        description="Position of the event in its turn: grows, may skip. The cursor to resume after."
    )


class MessageEvent(StreamEvent):
    """A piece of the answer; in mode `agent` the whole answer again, as its last event but one."""

    event: Literal["message"]
    id: MessageId
    answer: AnswerPiece
    from_variable_selector: list[str] | None = Field(description="Always null.")


class AgentMessageEvent(StreamEvent):
    """A piece of the answer in the modes `agent-chat` and `agent`."""

    event: Literal["agent_message"]
    id: MessageId
    answer: AnswerPiece


class AgentThoughtEvent(StreamEvent):
    """A reasoning or tool step was opened, grew or got its result; always the whole step."""

    event: Literal["agent_thought"]
    id: str = Field(description="The step's own id: a later event with it replaces this one.")
    position: StepPosition
    thought: Thought
    tool: ToolName
    tool_labels: dict[str, object]
    tool_input: ToolInput
    observation: Observation
    message_files: list[str]


class MessageReplaceEvent(StreamEvent):
    """The answer so far is replaced by this text; later pieces append to it."""

    event: Literal["message_replace"]
    answer: str = Field(description="The whole answer so far.")
    reason: str = Field(description="Why it was replaced, for people.")


class HumanInputRequiredEvent(StreamEvent):
    """The agent asks a human. The answer is the question's text, and `message_end` follows."""

    event: Literal["human_input_required"]
    workflow_run_id: AskingMessageId
    data: HumanInputForm


class HumanInputFormFilledEvent(StreamEvent):
    """First event of the turn that carries the human's answer."""

    event: Literal["human_input_form_filled"]
    workflow_run_id: AskingMessageId
    data: FormSubmission


class HumanInputFormTimeoutEvent(StreamEvent):
    """First event of the turn that tells the agent that nobody answered in time."""

    event: Literal["human_input_form_timeout"]
    workflow_run_id: AskingMessageId
    data: FormTimeout


class MessageFileEvent(StreamEvent):
    """The agent made a file; it is stored."""

    event: Literal["message_file"]
    id: str = Field(description="The file's id.")
    type: FileType
    belongs_to: Literal["assistant"]
    url: str = Field(description="A URL of the file that needs no key, for a limited time.")


class MessageEndEvent(StreamEvent):
    """The answer is complete and stored; ends the stream."""

    event: Literal["message_end"]
    id: MessageId
    metadata: Metadata
    files: list[MessageFileItem] = Field(description="What the agent made.")


class ErrorEvent(StreamEvent):
    """The turn failed; ends the stream. What was streamed before is kept."""

    event: Literal["error"]
    status: int = Field(description="The HTTP status this would have been before the stream began.")
    code: str = Field(description="What went wrong, for programs: as in ErrorBody.")
    message: str = Field(description="What went wrong, for people.")


class ChatStreamEvent(
    RootModel[
        Annotated[
            MessageEvent
            | AgentMessageEvent
            | AgentThoughtEvent
            | MessageReplaceEvent
            | HumanInputRequiredEvent
            | HumanInputFormFilledEvent
            | HumanInputFormTimeoutEvent
            | MessageFileEvent
            | MessageEndEvent
            | ErrorEvent,
            Field(discriminator="event"),
        ]
    ]
):
    """The JSON of one `data:` line of a stream; `event` tells which. Lines `event: ping` carry no data."""


EVENT_STREAM: dict[str, object] = {
    "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ChatStreamEvent"}}}
}
"""The content of a 200 whose every `data:` line is a ChatStreamEvent."""
