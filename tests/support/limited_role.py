"""A role of Postgres that may have only so many connections."""

import uuid
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.rows import look


def administer(url: str, *statements: str) -> None:
    """Do this as the owner of the database."""

    async def work(session: AsyncSession) -> None:
        for statement in statements:
            await session.execute(text(statement))

    look(url, work)


class LimitedRole:
    """`url` is that of the database for the role."""

    def __init__(self, owner_url: str, name: str) -> None:
        self._owner_url = owner_url
        self.name = name
        self.url = make_url(owner_url).set(username=name, password="x").render_as_string(hide_password=False)

    def limit(self, connections: int) -> None:
        """From now on so many; those that are open stay."""
        administer(self._owner_url, f"ALTER ROLE {self.name} CONNECTION LIMIT {connections}")

    def open_connections(self) -> int:
        """How many it has now."""
        statement = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :name")

        async def work(session: AsyncSession) -> int:
            return int((await session.execute(statement, {"name": self.name})).scalar_one())

        return look(self._owner_url, work)

    def terminate(self, connections: int = 1000) -> None:
        """End so many of its connections."""
        administer(
            self._owner_url,
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            f" WHERE usename = '{self.name}' LIMIT {connections}) AS theirs",
        )


@contextmanager
def limited_role(owner_url: str, connections: int) -> Generator[LimitedRole]:
    """A role that may do everything in this database, on so many connections."""
    role = LimitedRole(owner_url, f"limited_{uuid.uuid4().hex}")
    administer(
        owner_url,
        f"CREATE ROLE {role.name} LOGIN PASSWORD 'x' CONNECTION LIMIT {connections}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role.name}",
    )
    try:
        yield role
    finally:
        role.terminate()
        administer(owner_url, f"DROP OWNED BY {role.name}", f"DROP ROLE {role.name}")
