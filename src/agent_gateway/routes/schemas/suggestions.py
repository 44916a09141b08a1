"""Public JSON of suggested questions."""

from typing import Literal

from pydantic import BaseModel, Field


class SuggestedQuestionList(BaseModel):
    """Questions that the user may ask next."""

    result: Literal["success"]
    data: list[str] = Field(description="At most 5; empty when there are none (yet).")
