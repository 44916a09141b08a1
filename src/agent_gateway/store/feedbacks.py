"""Ratings of answers by end users. A message has one end user, and so at most one feedback."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select

from agent_gateway.domain.ids import FEEDBACK_CHARACTERS, AppId, MessageId, Rating, new_id
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import NotFound
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.scope import of_app, owned, scope_of
from agent_gateway.store.db.tables import conversations, feedbacks, messages
from agent_gateway.store.db.upsert import Upsert


@dataclass(frozen=True, slots=True)
class Feedback:
    """A feedback as an app sees it."""

    id: str
    app_id: str
    conversation_id: str
    message_id: str
    end_user_id: str
    rating: Rating
    content: str | None
    created_at: datetime
    updated_at: datetime


class FeedbackStore:
    """Reads and writes of feedbacks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rate(
        self, caller: Caller, message_id: MessageId, rating: Rating | None, content: str | None
    ) -> None:
        """Rate a message of the caller's, or take the rating back; NotFound for any other message."""
        scope = scope_of(caller.app.id, caller.user) | {"message": message_id}
        async with self._database.transaction() as connection:
            owned = (await connection.execute(_OWNED, scope)).first()
            if owned is None:
                raise NotFound("Message Not Exists.")
            if rating is None:
                await connection.execute(_TAKE_BACK, {"message": message_id})
                return
            row = {
                "id": new_id(),
                "app_id": caller.app.id,
                "conversation_id": owned.conversation_id,
                "message_id": message_id,
                "end_user_id": owned.end_user_id,
                "rating": rating,
                "content": content,
            }
            await _RATE.run(connection, row)

    async def page(self, app_id: AppId, *, page: int, limit: int) -> list[Feedback]:
        """The feedbacks of all users of an app, the newest first; pages count from 1.

        Those of a deleted conversation are not listed.
        """
        query = _PAGE.offset((page - 1) * limit).limit(limit)
        async with self._database.reading() as session:
            return [Feedback(*row) for row in await session.execute(query, {"app": app_id})]


# Rows of an older release may hold a text of any length.
_LISTED = [
    func.substr(feedbacks.c.content, 1, FEEDBACK_CHARACTERS) if name == "content" else feedbacks.c[name]
    for name in Feedback.__dataclass_fields__
]
_PAGE = (
    select(*_LISTED)
    .join(conversations, conversations.c.id == feedbacks.c.conversation_id)
    # The app of the feedback, too, for the index of the order.
    .where(feedbacks.c.app_id == bindparam("app"), of_app(conversations))
    .order_by(feedbacks.c.created_at.desc(), feedbacks.c.id.desc())
)


_OWNED = (
    select(messages.c.conversation_id, conversations.c.end_user_id)
    .join(conversations, conversations.c.id == messages.c.conversation_id)
    .where(messages.c.id == bindparam("message"), owned(conversations))
)
_TAKE_BACK = delete(feedbacks).where(feedbacks.c.message_id == bindparam("message"))
_RATE = Upsert(
    feedbacks,
    ["message_id"],
    values={"created_at": now_plus(), "updated_at": now_plus()},
    change=lambda new: {"rating": new.rating, "content": new.content, "updated_at": new.updated_at},
)
