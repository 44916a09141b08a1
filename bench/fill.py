"""Puts the rows of many former turns into the database of a running gateway."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg

BATCH: Final = 20_000
"""Messages of one transaction: on SQLite the gateway cannot write meanwhile."""
PER_CONVERSATION: Final = 10

_APP: Final = "(SELECT id FROM apps LIMIT 1)"
_VERSION: Final = "(SELECT id FROM app_versions LIMIT 1)"
_DIALECTS: Final = {
    "sqlite": {
        "id": "'019000000000700080' || '{kind}' || printf('%013x', {n})",
        "now": "unixepoch()",
        "none": "x''",
    },
    "postgres": {
        "id": "('019000000000700080' || '{kind}' || lpad(to_hex({n}), 13, '0'))::uuid",
        "now": "now()",
        "none": "''::bytea",
    },
}


def fill(messages: int, database: Path | str) -> None:
    """So many messages with their turns, 10 in a conversation; the database is an SQLite file or a URL."""
    if isinstance(database, Path):
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            for statements in _batches(messages, _DIALECTS["sqlite"]):
                with connection:
                    for statement in statements:
                        connection.execute(statement)
            connection.execute("ANALYZE")
            connection.commit()
    else:
        asyncio.run(_fill_postgres(messages, database))


async def _fill_postgres(messages: int, url: str) -> None:
    connection: Any = await asyncpg.connect(url)
    try:
        for statements in _batches(messages, _DIALECTS["postgres"]):
            async with connection.transaction():
                for statement in statements:
                    await connection.execute(statement)
        # What autovacuum does within a minute.
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def _batches(messages: int, dialect: dict[str, str]) -> Iterator[list[str]]:
    for first in range(0, messages, BATCH):
        yield list(_statements(first, min(first + BATCH, messages), dialect))


def _statements(first: int, end: int, dialect: dict[str, str]) -> Iterator[str]:
    now, none = dialect["now"], dialect["none"]

    def of(kind: str, number: str = "n") -> str:
        return dialect["id"].format(kind=kind, n=number)

    def rows(table: str, columns: dict[str, str], *, per: int = 1) -> str:
        numbers = (
            f"(WITH RECURSIVE numbers(n) AS (SELECT {first // per} UNION ALL SELECT n + 1 FROM numbers "
            f"WHERE n + 1 < {-(-end // per)}) SELECT n FROM numbers) AS numbers"
        )
        return (
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {numbers}"
        )

    user, conversation, message = of("a"), of("b"), of("c")
    of_conversation = of("b", f"n / {PER_CONVERSATION}")
    seq = f"n % {PER_CONVERSATION} + 1"
    yield rows(
        "end_users",
        {"id": user, "app_id": _APP, "external_id": "'former-' || n", "created_at": now},
        per=PER_CONVERSATION,
    )
    yield rows(
        "conversations",
        {
            "id": conversation, "app_id": _APP, "app_version_id": _VERSION, "end_user_id": user,
            "name": "'Conversation ' || n", "last_seq": str(PER_CONVERSATION),
            "created_at": now, "updated_at": now,
        },
        per=PER_CONVERSATION,
    )  # fmt: skip
    yield rows(
        "snapshots",
        {"conversation_id": conversation, "seq": str(PER_CONVERSATION), "data": "'{}'", "updated_at": now},
        per=PER_CONVERSATION,
    )
    yield rows(
        "messages",
        {
            "id": message, "conversation_id": of_conversation, "seq": seq, "query": "'What is ' || n || '?'",
            "answer": "'It is ' || n || '. Nobody has ever found out why, although many have tried.'",
            "marks": none, "created_at": now,
        },
    )  # fmt: skip
    yield rows(
        "turns",
        {
            "id": of("d"), "app_version_id": _VERSION, "conversation_id": of_conversation,
            "message_id": message, "seq": seq, "state": "'ended'", "epoch": "1", "adoptions": "0",
            "deadline_at": now, "fold_version": "1", "outcome": "'completed'", "end_position": "2",
            "created_at": now, "ended_at": now,
        },
    )  # fmt: skip
