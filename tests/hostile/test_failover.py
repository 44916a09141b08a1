"""The database's connections stay open but become read-only."""

import time
from pathlib import Path

import httpx
from sqlalchemy import make_url

from tests.support.chat import Chat, refused
from tests.support.databases import administer
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import GatewayServer, wait_until
from tests.support.rows import installed, terminate_backends


def set_read_only(url: str, value: str) -> None:
    """Sets the rights of new sessions; open ones keep theirs."""
    administer(f"ALTER DATABASE {make_url(url).database} SET default_transaction_read_only = {value}")


def readiness(server: GatewayServer) -> int:
    return httpx.get(f"{server.url}/readyz", trust_env=False).status_code


def test_writes_resume_once_the_database_is_writable_again(
    postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """As after a failover to a replica that is promoted later: no connection breaks."""
    fake.script = script(said("So far"), gate, succeed())
    with (
        GatewayServer(tmp_path, database_url=postgres_url, backend_url=fake.url, ping_seconds=0.1) as server,
        installed(server).client() as client,
        Chat(client, user).open() as stream,
    ):
        stream.until("So far")
        set_read_only(postgres_url, "on")
        terminate_backends(postgres_url)
        wait_until(lambda: readiness(server) == 503)
        refused(Chat(client, user).post(), 503, "service_unavailable")
        # Reads still work.
        assert client.get("/conversations", params={"user": user}).status_code == 200
        gate.open()
        set_read_only(postgres_url, "off")
        back = time.monotonic()
        wait_until(lambda: readiness(server) == 200)
        assert Chat(client, user).blocking()["answer"] == "So far"
        assert stream.rest().last["event"] == "message_end"
        assert time.monotonic() - back < 10
        # No read-only connection was kept: every next one can write.
        for _ in range(10):
            assert Chat(client, user).post().status_code == 200
