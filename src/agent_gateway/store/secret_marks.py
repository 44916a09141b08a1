"""The processes of a database need the same secret key: each notes which one it has."""

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
"""After which a process that has noted nothing counts as gone."""
LOCK: Final = 7_261_830_420
"""Key of the advisory lock: any number, but the same in every release."""


def mark_of(secret: bytes) -> str:
    """Tells one secret key from another, and reveals nothing about either."""
    return hmac.digest(secret, b"agent-gateway secret mark", "sha256").hex()[:16]


class Secrets:
    """Notes which secret key this process has. Only for Postgres: SQLite has one process."""

    def __init__(self, database: Database, owner: str, secret: bytes) -> None:
        self._database = database
        self._row = {"owner": owner, "secret_mark": mark_of(secret)}

    async def are_shared(self) -> bool:
        """True unless a live process has another secret key; then this process is noted, too."""
        async with self._database.transaction() as connection:
            # Of two processes that start at once, one has to see the other.
            await connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
            await connection.execute(_FORGET_DEAD)
            if await connection.scalar(_OTHERS, {"mark": self._row["secret_mark"]}) is not None:
                return False
            await _NOTE.run(connection, self._row)
        return True

    async def differ(self) -> bool:
        """True when a live process has another secret key. Changes nothing."""
        async with self._database.reading() as session:
            found = await session.scalar(_LIVE_OTHERS, {"mark": self._row["secret_mark"]})
        return found is not None

    async def note(self) -> None:
        """Note that this process still lives."""
        async with self._database.transaction() as connection:
            await _NOTE.run(connection, self._row)

    async def leave(self) -> None:
        """Delete the note: a process that starts with another secret key need not wait."""
        async with self._database.transaction() as connection:
            await connection.execute(_LEAVE, {"process": self._row["owner"]})


_FORGET_DEAD = delete(processes).where(processes.c.noted_at < now_plus(-ALIVE_SECONDS))
_OTHERS = select(processes.c.owner).where(processes.c.secret_mark != bindparam("mark")).limit(1)
_LIVE_OTHERS = _OTHERS.where(processes.c.noted_at >= now_plus(-ALIVE_SECONDS))
_NOTE = Upsert(
    processes, ["owner"], values={"noted_at": now_plus()}, change=lambda new: {"noted_at": new.noted_at}
)
_LEAVE = delete(processes).where(processes.c.owner == bindparam("process"))
