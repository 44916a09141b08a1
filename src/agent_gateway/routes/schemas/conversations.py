"""Public JSON of conversations."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from agent_gateway.routes.schemas.base import Body, UnixTime, User


class ConversationItem(BaseModel):
    """A conversation as listed."""

    id: str
    name: str
    inputs: dict[str, object]
    status: Literal["normal"]
    introduction: str = Field(description="The app's opening statement.")
    created_at: UnixTime
    updated_at: UnixTime


class ConversationPage(BaseModel):
    """A page of conversations."""

    limit: int
    has_more: bool
    data: list[ConversationItem]


class DeleteConversationBody(Body):
    """Body of DELETE /conversations/{conversation_id}; `user` may be a query parameter instead."""

    user: User | None = None


class RenameConversationBody(Body):
    """Body of POST /conversations/{conversation_id}/name: a name, or the wish for one."""

    user: User
    name: str | None = Field(None, description="The new name.", examples=["Travel plans"])
    auto_generate: bool | None = Field(
        None, description="Make a name of how the conversation began; wins over `name`."
    )

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if not self.auto_generate and not (self.name or "").strip():
            raise ValueError("name: is required unless auto_generate is true")
        return self
