"""Parameters that several routes take, and how ids and positions in them are read."""

from typing import Annotated

from fastapi import Header, Path, Query

from agent_gateway.apps.config import AppMode
from agent_gateway.domain.ids import ConversationId, canonical_uuid
from agent_gateway.errors import InvalidParam, NotFound
from agent_gateway.routes.schemas.base import User

UserQuery = Annotated[User, Query(description="The client's own identifier of its end user.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of a page.")]
ConversationPath = Annotated[str, Path(description="UUID of the conversation.")]
TaskPath = Annotated[str, Path(description="`task_id` of the turn.")]
ModeQuery = Annotated[
    AppMode | None, Query(description="App mode of this one stream, instead of the app's own.")
]
LastEventId = Annotated[
    str | None,
    Header(
        description="`event_id` of the last event that was seen.",
        alias="Last-Event-ID",
        json_schema_extra={"pattern": "^[0-9]{1,12}$"},
    ),
]


def optional_id(text: str | None, name: str) -> str | None:
    """The id in a query parameter; None when it is empty, InvalidParam when it is no UUID."""
    if not text:
        return None
    if canonical := canonical_uuid(text):
        return canonical
    raise InvalidParam(f"{name}: must be a UUID")


def conversation_of(conversation_id: str) -> ConversationId:
    """The conversation that a path names; NotFound when that is no UUID."""
    if canonical := canonical_uuid(conversation_id):
        return ConversationId(canonical)
    raise NotFound("Conversation Not Exists.")


def position_of(text: str, name: str) -> int:
    """The position that an `event_id` is; InvalidParam, naming the parameter, when it is none."""
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise InvalidParam(f"{name}: must be the event_id of an event of this stream")
    return int(text)
