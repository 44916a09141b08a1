"""Probes, and a gateway whose database is not (yet) what it expects."""

import asyncio
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from agent_gateway import bootstrap, conditions
from agent_gateway.limits import Limits, StartLimits
from agent_gateway.store.db import sqlite_file
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import migrate, schema_is_current
from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, delta, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_server import BOUND, TAKEN_OVER, GatewayServer, StartGateway, wait_until
from tests.support.log_lines import kept_lines


def test_probes_need_no_key(server: GatewayServer) -> None:
    for path in ("/healthz", "/readyz"):
        response = httpx.get(server.url + path, trust_env=False)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("empty_database_url", ["postgres"], indirect=True)
def test_the_gateway_is_not_ready_without_the_schema(
    empty_database_url: str, fake: ScriptedBackend, user: str, tmp_path: Path
) -> None:
    """Against Postgres the gateway does not migrate; when somebody else did, it is ready by itself."""

    async def migrate_as_another_process() -> None:
        database = Database(empty_database_url)
        try:
            await migrate(database)
        finally:
            await database.close()

    with (
        GatewayServer(tmp_path, database_url=empty_database_url, backend_url=fake.url) as server,
        server.client() as client,
    ):
        assert client.get("/healthz").status_code == 200
        not_ready = refused(client.get("/readyz"), 503, "service_unavailable")
        assert "migrate" in not_ready["message"]
        chat = Chat(client, user)
        for response in (chat.post(), chat.events(str(uuid4())), client.get("/conversations")):
            refused(response, 503, "service_unavailable")
            assert int(response.headers["Retry-After"]) > 0
        asyncio.run(migrate_as_another_process())
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert chat.blocking("Hi")["answer"] == "You said: Hi."


def test_on_a_full_disk_the_gateway_is_not_ready_and_says_so_until_there_is_room(
    fake: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads go on, and they do not make the log say that all is well."""
    monkeypatch.setattr(conditions, "OVER_SECONDS", 0.01)
    with GatewayServer(tmp_path, backend_url=fake.url) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        room = sqlite_file.ROOM_BYTES
        with kept_lines("agent_gateway.store.db.database") as lines:
            monkeypatch.setattr(sqlite_file, "ROOM_BYTES", 2**62)
            refused(client.get("/readyz"), 503, "service_unavailable")
            for _ in range(5):
                assert client.get("/conversations?user=ada").status_code == 200
            refused(client.get("/readyz"), 503, "service_unavailable")
            assert [line["message"] for line in lines] == [
                "the database is away: the disk of the database is full"
            ]
            monkeypatch.setattr(sqlite_file, "ROOM_BYTES", room)
            assert client.get("/readyz").status_code == 200
            wait_until(lambda: len(lines) == 2)
        assert "the database is away no longer" in lines[1]["message"]


def test_a_process_listens_once_it_knows_its_database(
    postgres_url: str, fake: ScriptedBackend, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that connects as early as possible is served, even when the database is slow."""
    listened: list[bool] = []

    async def slowly(database: Database) -> bool:
        await asyncio.sleep(2)
        listened.append(gateway.server.started)
        return await schema_is_current(database)

    monkeypatch.setattr(bootstrap, "schema_is_current", slowly)
    limits = Limits(start=StartLimits(listen_seconds=BOUND))
    gateway = GatewayServer(tmp_path, limits=limits, database_url=postgres_url, backend_url=fake.url)
    with gateway, gateway.client() as client:
        assert Chat(client, user).blocking("Hi")["answer"] == "You said: Hi."
    assert listened == [False]


def test_a_draining_process_is_alive_but_not_ready(
    start_gateway: StartGateway, database_url: str, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """No new turns, not ready, but alive, and the running turn continues to its end."""
    server = start_gateway(limits=TAKEN_OVER)
    alone = not database_url.startswith("postgresql")
    if not alone:
        # What is handed over needs somebody to take it.
        start_gateway(limits=TAKEN_OVER)
    fake.script = script(text("One "), gate, delta("two"), succeed())
    with server.client() as client:
        chat = Chat(client, user)
        key = {"Idempotency-Key": "k"}
        with chat.open(headers=key) as stream:
            conversation_id = stream.next()["conversation_id"]
            server.begin_stop(drain_seconds=10)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            refused(client.get("/readyz"), 503, "service_unavailable")
            assert client.get("/healthz").status_code == 200
            for mode in ("streaming", "blocking", "background"):
                response = chat.post(response_mode=mode, conversation_id=conversation_id)
                refused(response, 503, "service_unavailable")
                assert int(response.headers["Retry-After"]) > 0
            assert chat.message(conversation_id)["query"] == "Hello"
            if not alone:
                wait_until(lambda: [live for live in server.gateway.live.followed() if live.handed_over])
            with chat.follow(stream.task_id) as another:
                assert another.next()["answer"] == "One "
                gate.open()
                # With others there, who can resume is sent to them.
                assert another.rest().kinds[1:] == (["message", "message_end"] if alone else [])
            assert stream.rest().answer == "One two"
    server.stop()
    assert fake.posts == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_can_use_head(server: GatewayServer, path: str) -> None:
    with server.client() as client:
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")
