"""Ids and small shared types. Pure."""

import uuid
from typing import Final, Literal, NewType

from uuid_utils import uuid7

AppId = NewType("AppId", str)
AppVersionId = NewType("AppVersionId", str)
KeyId = NewType("KeyId", str)
"""Names an API key to operators; it is not the key itself."""
ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
TaskId = NewType("TaskId", str)
"""Public handle of a turn; the same UUID as the turn's row."""
FormId = NewType("FormId", str)
FileId = NewType("FileId", str)
RunId = NewType("RunId", str)
"""The backend's name for its execution of a turn; never shown to clients."""
FEEDBACK_CHARACTERS: Final = 16_384
"""Of a user's comment on an answer: it bounds a page of a hundred comments."""
Generation = Literal[1, 2]
"""The version of the run protocol that a backend speaks: the `schema_version` of its compositions."""
Rating = Literal["like", "dislike"]
"""A user's opinion of an answer."""


def new_id() -> str:
    """A fresh time-ordered UUID in canonical text form."""
    return str(uuid7())


def canonical_uuid(text: str) -> str | None:
    """The canonical form of a UUID written in any usual way, or None when it is not one."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def first_id_of(seconds: float) -> str:
    """The smallest id that `new_id` can give at that time, in seconds since 1970."""
    return str(uuid.UUID(int=max(0, int(seconds * 1000)) << 80))
