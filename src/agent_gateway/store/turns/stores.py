"""The turns of one process: one class for callers, one for the owner of a turn, one for readers."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from agent_gateway.errors import StoreUnavailable
from agent_gateway.retry import retry_while
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.shielded import ShieldedTasks
from agent_gateway.store.turns.common_path import CommonPath
from agent_gateway.store.turns.common_postgres import CommonWritesOnPostgres
from agent_gateway.store.turns.common_sqlite import CommonWritesOnSqlite
from agent_gateway.store.turns.intake import TurnIntake
from agent_gateway.store.turns.outbox import Outbox
from agent_gateway.store.turns.ownership import OwnedTurns
from agent_gateway.store.turns.reader import TurnReader
from agent_gateway.store.turns.rows import OwnerContext

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TurnStores:
    """What callers, owners and readers do with turns, and the outbox that they share."""

    intake: TurnIntake
    owned: OwnedTurns
    reader: TurnReader
    outbox: Outbox
    shielded: ShieldedTasks

    @classmethod
    def open(cls, database: Database, context: OwnerContext) -> "TurnStores":
        """The stores of a process that owns turns under these conditions."""
        outbox = Outbox(database, context)
        writes = CommonWritesOnSqlite if database.is_sqlite else CommonWritesOnPostgres
        common = CommonPath(writes(database, context), database.shielded)
        owned = OwnedTurns(database, context, outbox, common)
        intake = TurnIntake(database, context, outbox, owned.promoted, common)
        return cls(intake, owned, TurnReader(database, context), outbox, database.shielded)

    async def retried(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it, again for as long as the database is away: a turn never ends for that reason (R7)."""
        return await self.owner_retried(lambda: self.shielded(work()))

    async def owner_retried(self, write: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The same for arm and finish, which are not cancelled once they are on their way."""
        return await retry_while(StoreUnavailable, write, "the database")
