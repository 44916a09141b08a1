"""Public JSON of conversations and messages."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from agent_gateway.domain.ids import Rating
from agent_gateway.routes.schemas.base import (
    Observation,
    StepPosition,
    Thought,
    ToolInput,
    ToolName,
    UnixTime,
)
from agent_gateway.routes.schemas.files import MessageFileItem
from agent_gateway.routes.schemas.human_input import HumanInputContent


class ConversationItem(BaseModel):
    """A conversation as listed."""

    id: str
    name: str
    inputs: dict[str, Any]
    status: Literal["normal"]
    introduction: str = Field(description="The app's opening statement.")
    created_at: UnixTime
    updated_at: UnixTime


class ConversationPage(BaseModel):
    """A page of conversations."""

    limit: int
    has_more: bool
    data: list[ConversationItem]


class ThoughtItem(BaseModel):
    """A step of a message as listed."""

    id: str
    chain_id: str | None
    message_id: str
    position: StepPosition
    thought: Thought
    tool: ToolName
    tool_labels: dict[str, Any]
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
    inputs: dict[str, Any]
    query: str
    answer: str
    status: Literal["normal", "error"] = Field(description="`error` when its turn failed.")
    error: str | None = Field(description="Why its turn failed.")
    message_files: list[MessageFileItem]
    feedback: MessageRating | None
    retriever_resources: list[dict[str, Any]]
    agent_thoughts: list[ThoughtItem]
    created_at: UnixTime
    extra_contents: list[HumanInputContent] = Field(description="The question that it asks a human.")
    message_tokens: int
    answer_tokens: int
    total_tokens: int
    provider_response_latency: float = Field(description="Seconds.")
    total_price: str = Field(description="A decimal number.")
    currency: str


class MessagePage(BaseModel):
    """A page of messages, oldest first."""

    limit: int
    has_more: bool
    data: list[MessageItem]
