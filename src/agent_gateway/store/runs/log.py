"""The log of the embedded agent's runs in the database; implements `backend.embedded.run_log.RunLog`.

Runs that begin in the same moment are begun together, and events of many runs are appended by one statement.
What one process writes is fenced: it names owner and epoch (R19).
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Protocol

from agent_gateway.domain.ids import RunId, canonical_uuid
from agent_gateway.domain.run_log import Batch, HeldRun, NewRun, Reading, TakenRun
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.group_commit import GroupCommit
from agent_gateway.store.runs.removal import prune_runs
from agent_gateway.store.runs.statements import (
    APPEND,
    ASK_TO_CANCEL,
    ASKED,
    BEGIN,
    CHANGE,
    FIND,
    INSERT_EVENTS,
    INSERT_RUN,
    LOOK_ALONE,
    LOOK_SHARED,
    POLL,
    READ,
    RENEW,
    STATUS,
    TAKE_ALONE,
    TAKE_SHARED,
)

_BATCH: Final = tuple(name for name in Batch._fields if name != "run_id")


class _Writes(Protocol):
    """What is written often, on one of the two databases."""

    async def begin(self, new: Sequence[NewRun]) -> list[bool]:
        """Insert these runs; False for one that is there already, or one with its key."""
        ...

    async def append(self, batches: Sequence[Batch]) -> set[RunId]:
        """Append these; returns the runs that are ours."""
        ...


class StoredRunLog:
    """The run log, for a process with this owner id. Raises StoreUnavailable and StoreRejected."""

    def __init__(self, database: Database, owner: str, lease_seconds: float, keep_seconds: float) -> None:
        self.shared = not database.is_sqlite
        """Whether other processes write to the same log."""
        self.lease_seconds = lease_seconds
        self.clock = database.clock
        self._database = database
        self._keep_seconds = keep_seconds
        self._ours = {"our_owner": owner, "lease_seconds": lease_seconds}
        writes: type[_OnPostgres | _OnSqlite] = _OnPostgres if self.shared else _OnSqlite
        self._writes: _Writes = writes(database, self._ours)
        self._begin = GroupCommit(
            self._writes.begin, database.shielded, of=_of_new, size=lambda new: len(new.request or b"")
        )

    async def begin(self, new: NewRun) -> RunId:
        """Begin a run. Returns its id, or that of the earlier run with the same idempotency key."""
        if await self._begin(new):
            return new.id
        async with self._database.reading() as session:
            found = await session.execute(FIND, {"run": new.id, "key": new.key})
            ids = {row.id for row in found}
        return new.id if new.id in ids or not ids else RunId(ids.pop())

    async def append(self, batches: Sequence[Batch]) -> set[RunId]:
        """Append these batches, of different runs, in one commit. Returns those runs that are still ours.

        For the others nothing was written. May be repeated when the answer of the first try was lost.
        """
        return await self._database.shielded(self._writes.append(batches))

    async def renew(self, held: Sequence[HeldRun]) -> set[RunId]:
        """Renew the leases of running runs; returns those that are still ours."""
        if not self.shared:
            return {run.id for run in held}
        values = {"run": [run.id for run in held], "epoch": [run.epoch for run in held]}
        found = await self._database.shielded(
            self._database.fetch(RENEW, {**self._ours, **values}, "heartbeats")
        )
        return {RunId(row[0]) for row in found}

    async def asked_to_cancel(self) -> dict[RunId, bytes]:
        """The running runs of ours that somebody wants to be cancelled: JSON of why."""
        if not self.shared:
            return {}
        rows = await self._database.shielded(self._database.fetch(ASKED, self._ours, "heartbeats"))
        return {RunId(row[0]): row[1] for row in rows}

    async def ask_to_cancel(self, run_id: RunId, why: bytes) -> None:
        """Ask the owner of a run to cancel it. Only the first request counts."""
        async with self._database.transaction() as connection:
            await connection.execute(ASK_TO_CANCEL, {"run": run_id, "why": why})

    async def read(self, run_id: str, after: int) -> Reading | None:
        """What the log says about a run, with its batches after this number; None when it has no such run."""
        known = canonical_uuid(run_id)
        if known is None:
            return None
        look = LOOK_SHARED if self.shared else LOOK_ALONE
        async with self._database.reading() as session:
            # The row first: if it says that the run has ended, all of its events are there.
            row = (await session.execute(look, {"run": known, **self._ours})).first()
            if row is None:
                return None
            pieces = list(await session.scalars(READ, {"run": known, "number": after}))
        return Reading(row.status, row.error, row.epoch, row.created_at, row.lost, pieces)

    async def poll(self, wanted: Sequence[tuple[RunId, int]]) -> dict[RunId, Reading]:
        """The same of many runs, in one statement. Only for a log that is shared."""
        values = {"id": [run_id for run_id, _ in wanted], "after": [after for _, after in wanted]}
        rows = await self._database.fetch(POLL, values)
        readings: dict[RunId, Reading] = {}
        for run_id, status, error, epoch, created_at, lost, piece in rows:
            reading = readings.get(run_id)
            if reading is None:
                reading = readings[run_id] = Reading(status, error, epoch, created_at, lost, [])
            if piece is not None:
                reading.pieces.append(piece)  # type: ignore[attr-defined]
        return readings

    async def take(self, run_id: RunId, epoch: int) -> TakenRun | None:
        """Become the owner of a run whose owner is gone; None when it is not, or another one was faster."""
        take = TAKE_SHARED if self.shared else TAKE_ALONE
        async with self._database.transaction("duty") as connection:
            taken = await connection.execute(take, {"run": run_id, "their_epoch": epoch, **self._ours})
            row = taken.first()
        return None if row is None else TakenRun(row.epoch, row.request, row.cancel)

    async def prune(self) -> int:
        """Delete the runs that ended long ago; returns how many."""
        return await prune_runs(self._database, self._keep_seconds)


class _OnPostgres:
    def __init__(self, database: Database, ours: dict[str, Any]) -> None:
        self._database = database
        self._ours = ours

    async def begin(self, new: Sequence[NewRun]) -> list[bool]:
        values = {name: [getattr(run, name) for run in new] for name in NewRun._fields}
        begun = {row[0] for row in await self._database.fetch(BEGIN, {**self._ours, **values})}
        return [run.id in begun for run in new]

    async def append(self, batches: Sequence[Batch]) -> set[RunId]:
        values: dict[str, list[Any]] = {name: [getattr(batch, name) for batch in batches] for name in _BATCH}
        values["run"] = [batch.run_id for batch in batches]
        rows = await self._database.fetch(APPEND, {**self._ours, **values}, "duty")
        return {RunId(row[0]) for row in rows}


class _OnSqlite:
    def __init__(self, database: Database, ours: dict[str, Any]) -> None:
        self._database = database
        self._ours = ours

    async def begin(self, new: Sequence[NewRun]) -> list[bool]:
        def work(connection: sqlite3.Connection) -> list[bool]:
            return [self._begin(connection, run) for run in new]

        return await self._database.write(work)

    def _begin(self, connection: sqlite3.Connection, new: NewRun) -> bool:
        values = {**new._asdict(), **self._ours}
        if INSERT_RUN.execute(connection, values).rowcount != 1:
            return False
        INSERT_EVENTS.execute(connection, {"run_id": new.id, "first": 1, "count": 1, "data": new.data})
        return True

    async def append(self, batches: Sequence[Batch]) -> set[RunId]:
        def work(connection: sqlite3.Connection) -> set[RunId]:
            return {batch.run_id for batch in batches if self._append(connection, batch)}

        return await self._database.write(work)

    def _append(self, connection: sqlite3.Connection, batch: Batch) -> bool:
        """Whether the run is ours."""
        ours = {"run": batch.run_id, "our_epoch": batch.epoch, **self._ours}
        status = STATUS.first(connection, ours)
        if status is None:
            return False
        if status[0] == "running":
            INSERT_EVENTS.execute(connection, batch._asdict())
            if batch.status != "running" or batch.drop_request:
                CHANGE.execute(connection, {**ours, "new_status": batch.status, "new_error": batch.error})
        return True


def _of_new(new: NewRun) -> tuple[str, ...]:
    return (new.id,) if new.key is None else (new.id, new.key)
