"""End users: who talked to an app."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from agent_gateway.domain.ids import AppId
from agent_gateway.errors import EndUserNotFound
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.tables import end_users


@dataclass(frozen=True, slots=True)
class EndUser:
    """An end user of one app."""

    id: str
    app_id: str
    external_id: str
    """The client's own identifier."""
    created_at: datetime


class EndUserStore:
    """Reads of end users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, app_id: AppId, end_user_id: str | None) -> EndUser:
        """An end user of this app; EndUserNotFound for any other id, and for none."""
        query = select(end_users).where(end_users.c.id == end_user_id, end_users.c.app_id == app_id)
        async with self._database.reading() as session:
            row = (await session.execute(query)).first() if end_user_id else None
        if row is None:
            raise EndUserNotFound("End user not found.")
        return EndUser(row.id, row.app_id, row.external_id, row.created_at)
