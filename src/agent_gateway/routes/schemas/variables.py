"""Public JSON of conversation variables."""

from pydantic import BaseModel, Field

from agent_gateway.routes.schemas.base import Body, UnixTime, User


class VariableBody(Body):
    """Body of PUT /conversations/{conversation_id}/variables/{variable_id}."""

    value: object = Field(description="The new value: any JSON.")
    user: User


class VariableItem(BaseModel):
    """A variable of a conversation."""

    id: str
    name: str
    value_type: str
    value: str
    description: str
    created_at: UnixTime
    updated_at: UnixTime


class VariablePage(BaseModel):
    """A page of variables."""

    limit: int
    has_more: bool
    data: list[VariableItem]
