"""Public JSON of end users."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class EndUserItem(BaseModel):
    """An end user of an app."""

    id: str
    tenant_id: str
    app_id: str
    type: Literal["service_api"]
    external_user_id: str = Field(description="The `user` under which the client knows them.")
    name: str | None = Field(description="Always null: the gateway knows no names.")
    is_anonymous: bool = Field(description="Whether this is who requests without `user` are for.")
    session_id: str = Field(description="The same as `external_user_id`.")
    created_at: datetime
    updated_at: datetime
