"""The four writes of a turn on Postgres: each a single statement over arrays, one round trip, one commit.

A statement sees everything as it was when it began. So it skips rows that another transaction has locked, and
conversations that changed before they were locked here. That shows in their number or time: every transaction
that changes what these statements read of a conversation sets one of them. What is skipped takes the other
way, which waits. Here nobody waits for conversations and turns, only for a key or an end user that is being
inserted, in their order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agent_gateway.store.db.connections import Pool
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.prepared import PreparedForPostgres
from agent_gateway.store.turns.common_path import Begun, NewMessage, OwnedTurn, Running, TurnEnd
from agent_gateway.store.turns.postgres_statements.begin import BEGIN
from agent_gateway.store.turns.postgres_statements.finish import FINISH, STEP_NAMES
from agent_gateway.store.turns.postgres_statements.ownership import ARM, MARK_RUNNING, RENEW
from agent_gateway.store.turns.rows import OwnerContext

_END_NAMES: Final = tuple(name for name in TurnEnd._fields if name != "steps")


class CommonWritesOnPostgres:
    """Implements `CommonWrites`."""

    def __init__(self, database: Database, context: OwnerContext) -> None:
        self._database = database
        self._values = {
            "our_owner": context.owner,
            "lease_seconds": context.lease_seconds,
            "turn_seconds": context.turn_seconds,
            "our_fold": context.fold_versions[0],
        }

    async def begin(self, messages: Sequence[NewMessage]) -> list[Begun | None]:
        """Begin turns (R3)."""
        begun: list[Begun | None] = [None] * len(messages)
        for n, now, snapshot, inputs in await self._fetch(BEGIN, _columns(NewMessage._fields, messages)):
            begun[n - 1] = Begun(now, snapshot, inputs)
        return begun

    async def arm(self, owned: Sequence[OwnedTurn]) -> list[bool]:
        """`planned → sending` (R4)."""
        armed = {row[0] for row in await self._fetch(ARM, _columns(OwnedTurn._fields, owned))}
        return [turn.task in armed for turn in owned]

    async def mark_running(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """`sending → running` (R4)."""
        found = await self._fetch(MARK_RUNNING, _columns(OwnedTurn._fields, owned))
        running = {task: Running(stop_asked) for task, stop_asked in found}
        return [running.get(turn.task) for turn in owned]

    async def renew(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """Renew leases (R6)."""
        found = await self._fetch(RENEW, _columns(OwnedTurn._fields, owned), "heartbeats")
        renewed = {task: Running(stop_asked) for task, stop_asked in found}
        return [renewed.get(turn.task) for turn in owned]

    async def finish(self, ends: Sequence[TurnEnd]) -> list[bool]:
        """`running → ended` (R7)."""
        steps = [step for end in ends for step in end.steps]
        values = _columns(_END_NAMES, ends) | _columns(STEP_NAMES, steps, "step_")
        values["step_task"] = [end.task for end in ends for _ in end.steps]
        ended = {row[0] for row in await self._fetch(FINISH, values, "duty")}
        return [end.task in ended for end in ends]

    async def _fetch(
        self, statement: PreparedForPostgres, values: Mapping[str, Any], pool: Pool = "requests"
    ) -> list[Any]:
        return await self._database.fetch(statement, {**self._values, **values}, pool)


def _columns(names: Iterable[str], rows: Sequence[object], prefix: str = "") -> dict[str, list[Any]]:
    return {prefix + name: [getattr(row, name) for row in rows] for name in names}
