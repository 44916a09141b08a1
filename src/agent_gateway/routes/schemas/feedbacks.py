"""Public JSON of feedbacks."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from agent_gateway.domain.ids import FEEDBACK_CHARACTERS, Rating
from agent_gateway.routes.schemas.base import Body, User


class FeedbackBody(Body):
    """Body of POST /messages/{message_id}/feedbacks."""

    rating: Rating | None = Field(None, description="Null takes the rating back.")
    content: str | None = Field(
        None, max_length=FEEDBACK_CHARACTERS, description="More about it, in the user's words."
    )
    user: User


class FeedbackItem(BaseModel):
    """A feedback as listed."""

    id: str
    app_id: str
    conversation_id: str
    message_id: str
    rating: Rating
    content: str | None
    from_source: Literal["user"]
    from_end_user_id: str
    from_account_id: str | None = Field(description="Always null.")
    created_at: datetime
    updated_at: datetime


class FeedbackPage(BaseModel):
    """A page of feedbacks, the newest first."""

    data: list[FeedbackItem]
