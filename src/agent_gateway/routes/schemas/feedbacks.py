"""Public JSON of feedbacks as the app lists them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from agent_gateway.domain.ids import Rating


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
