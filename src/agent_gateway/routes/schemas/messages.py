"""Public JSON of messages: as listed, their ratings, and questions that may follow them."""

from typing import Literal

from pydantic import BaseModel, Field

from agent_gateway.domain.ids import FEEDBACK_CHARACTERS, Rating
from agent_gateway.routes.schemas.base import (
    Body,
    Metadata,
    Observation,
    StepPosition,
    Thought,
    ToolInput,
    ToolName,
    UnixTime,
    User,
)
from agent_gateway.routes.schemas.files import MessageFileItem
from agent_gateway.routes.schemas.human_input import HumanInputContent


class ThoughtItem(BaseModel):
    """A step of a message as listed."""

    id: str
    chain_id: str | None
    message_id: str
    position: StepPosition
    thought: Thought
    tool: ToolName
    tool_labels: dict[str, object]
    tool_input: ToolInput
    observation: Observation
    files: list[str]
    created_at: UnixTime


class MessageRating(BaseModel):
    """What its user thought of an answer."""

    rating: Rating


class MessageItem(BaseModel):
    """A message as listed."""

    id: str
    conversation_id: str
    parent_message_id: str | None
    inputs: dict[str, object]
    query: str
    answer: str
    status: Literal["normal", "error"] = Field(description="`error` when its turn failed.")
    error: str | None = Field(description="Why its turn failed.")
    message_files: list[MessageFileItem]
    feedback: MessageRating | None
    retriever_resources: list[dict[str, object]]
    agent_thoughts: list[ThoughtItem]
    created_at: UnixTime
    extra_contents: list[HumanInputContent] = Field(description="The question that it asks a human.")
    message_tokens: int
    answer_tokens: int
    total_tokens: int
    provider_response_latency: float = Field(description="Seconds.")
    total_price: str = Field(description="A decimal number.")
    currency: str
    metadata: Metadata = Field(description="As in the `message_end` of its turn.")
    task_id: str | None = Field(description="Its turn, while that runs or waits; null when it has ended.")
    events_url: str | None = Field(
        description="Follows its turn without a key, for a limited time; null when that has ended."
    )


class MessagePage(BaseModel):
    """A page of messages, oldest first."""

    limit: int
    has_more: bool
    data: list[MessageItem]


class FeedbackBody(Body):
    """Body of POST /messages/{message_id}/feedbacks."""

    rating: Rating | None = Field(None, description="Null takes the rating back.")
    content: str | None = Field(
        None, max_length=FEEDBACK_CHARACTERS, description="More about it, in the user's words."
    )
    user: User


class SuggestedQuestionList(BaseModel):
    """Questions that the user may ask next."""

    result: Literal["success"]
    data: list[str] = Field(description="At most 5; empty when there are none (yet).")
