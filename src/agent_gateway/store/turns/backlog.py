"""What waits in the database: queued turns, and work that is still to be done at the backend."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, literal_column, select

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import outbox, turns
from agent_gateway.store.turns.outbox import OutboxKind


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, in all processes together."""

    queued: int
    """Turns behind another turn of their conversation."""
    queued_seconds: float
    """Age of the oldest of them; 0 when there is none."""
    outbox: dict[str, int]
    """Entries by kind; every kind is there."""
    oldest_seconds: float
    """Age of the oldest entry; 0 when there is none."""


class BacklogReader:
    """Reads what waits. One query has an index that holds nothing else, the other a small table."""

    _QUEUED: Final = (
        # Not a parameter: only a constant is known to be what the index holds.
        select(func.count(), func.min(turns.c.created_at), now_plus().label("now"))
        .select_from(turns)
        .where(turns.c.state == literal_column(f"'{TurnState.QUEUED.value}'"))
    )
    _ENTRIES: Final = select(
        outbox.c.kind, func.count(), func.min(outbox.c.created_at), now_plus().label("now")
    ).group_by(outbox.c.kind)

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Backlog:
        """Read it now. Raises StoreUnavailable."""
        async with self._database.reading() as session:
            queued, since, now = (await session.execute(self._QUEUED)).one()
            rows = list(await session.execute(self._ENTRIES))
        entries = {kind.value: 0 for kind in OutboxKind} | {row[0]: row[1] for row in rows}
        oldest = max([(row.now - row[2]).total_seconds() for row in rows], default=0.0)
        waited = (now - since).total_seconds() if since else 0.0
        return Backlog(queued, max(0.0, waited), entries, max(0.0, oldest))
