"""Which secret key the processes of a database work with: they all need the same one."""

import hmac
from typing import Final

from sqlalchemy import bindparam, delete, func, select

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import processes
from agent_gateway.store.db.upsert import Upsert

NOTE_SECONDS: Final = 20.0
"""How often a process notes that it lives."""
ALIVE_SECONDS: Final = 70
"""After which a process that has noted nothing is taken for gone."""
LOCK: Final = 7_261_830_420
"""Key of the advisory lock: any number, but the same in every release."""


def mark_of(secret: bytes) -> str:
    """What tells one secret key from another, and nothing about either."""
    return hmac.digest(secret, b"agent-gateway secret mark", "sha256").hex()[:16]


class Secrets:
    """Notes with which secret key this process works. Only for Postgres: SQLite has one process."""

    def __init__(self, database: Database, owner: str, secret: bytes) -> None:
        self._database = database
        self._row = {"owner": owner, "secret_mark": mark_of(secret)}

    async def are_shared(self) -> bool:
        """True, and noted, unless other processes live that work with another secret key."""
        async with self._database.transaction() as connection:
            # Of two that start at once one has to see the other.
            await connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
            await connection.execute(_FORGET_DEAD)
            if await connection.scalar(_OTHERS, {"mark": self._row["secret_mark"]}) is not None:
                return False
            await _NOTE.run(connection, self._row)
        return True

    async def note(self) -> None:
        """This process still lives."""
        async with self._database.transaction() as connection:
            await _NOTE.run(connection, self._row)

    async def leave(self) -> None:
        """This process ends: whoever comes with another secret key need not wait."""
        async with self._database.transaction() as connection:
            await connection.execute(_LEAVE, {"process": self._row["owner"]})


_FORGET_DEAD = delete(processes).where(processes.c.noted_at < now_plus(-ALIVE_SECONDS))
_OTHERS = select(processes.c.owner).where(processes.c.secret_mark != bindparam("mark")).limit(1)
_NOTE = Upsert(
    processes, ["owner"], values={"noted_at": now_plus()}, change=lambda new: {"noted_at": new.noted_at}
)
_LEAVE = delete(processes).where(processes.c.owner == bindparam("process"))
