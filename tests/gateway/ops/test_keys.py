"""API keys over HTTP: revoked, expired, and when they were last used."""

import asyncio
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_gateway.domain.ids import AppId, KeyId
from agent_gateway.limits import Limits, RequestLimits
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import api_keys
from agent_gateway.store.keys import BOOTSTRAP_LABEL, USE_SECONDS, KeyStore
from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, within
from tests.support.gateway_process import PRINTED_KEY
from tests.support.gateway_server import (
    NO_KEY_IS_REMEMBERED,
    SECRET_KEY,
    GatewayServer,
    StartGateway,
    wait_until,
)
from tests.support.rows import apply_app, installed, look, make_key, with_database

KEYS_FOR_A_SECOND = Limits(requests=RequestLimits(key_seconds=1.0))


def revoke(url: str, key_id: KeyId) -> None:
    assert with_database(url, lambda database: KeyStore(database, SECRET_KEY.encode()).revoke(key_id))


def an_app(url: str) -> AppId:
    return apply_app(url, "an-app").app_id


def test_a_revoked_key_stops_working_on_every_process(fleet: Fleet) -> None:
    """Although all of them have just seen it work; the app's other key still works."""
    app_id = an_app(fleet.database_url)
    key_id, key = make_key(fleet.database_url, app_id)
    _, other = make_key(fleet.database_url, app_id)
    servers = [fleet.start(limits=KEYS_FOR_A_SECOND) for _ in range(2)]
    clients = [fleet.chat(server, "", key).client for server in servers]
    others = [fleet.chat(server, "", other).client for server in servers]
    assert [client.get("/info").status_code for client in clients] == [200, 200]
    revoke(fleet.database_url, key_id)
    for client in clients:
        wait_until(lambda client=client: client.get("/info").status_code != 200)
        refused(client.get("/info"), 401, "unauthorized")
    assert [client.get("/info").status_code for client in others] == [200, 200]


def test_a_key_expires(start_gateway: StartGateway, database_url: str) -> None:
    server = start_gateway(limits=NO_KEY_IS_REMEMBERED)
    app_id = an_app(database_url)
    _, expired = make_key(database_url, app_id, seconds=-1)
    with server.client(expired) as client:
        refused(client.get("/info"), 401, "unauthorized")
    key_id, key = make_key(database_url, app_id, seconds=3600)
    with server.client(key) as client:
        assert client.get("/info").status_code == 200

        async def an_hour_later(session: AsyncSession) -> None:
            mine = api_keys.c.id == key_id
            await session.execute(update(api_keys).where(mine).values(expires_at=now_plus(0.3)))

        look(database_url, an_hour_later)
        wait_until(lambda: client.get("/info").status_code == 401)


def test_a_running_turn_continues_when_its_key_is_revoked(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    key_id, key = make_key(database_url, an_app(database_url))
    fake.queue(script(said("Yes"), gate, succeed()))
    server = start_gateway(limits=KEYS_FOR_A_SECOND)
    with server.client(key) as client, Chat(client, user).open() as stream:
        stream.until("Yes")
        revoke(database_url, key_id)
        wait_until(lambda: client.get("/info").status_code != 200)
        refused(client.get("/info"), 401, "unauthorized")
        gate.open()
        assert stream.rest().last["event"] == "message_end"


def test_the_last_use_of_a_key_is_stored_at_most_once_a_minute(
    start_gateway: StartGateway, database_url: str, user: str
) -> None:
    server = start_gateway()
    app_id = an_app(database_url)
    (_, key), (unused, _) = make_key(database_url, app_id), make_key(database_url, app_id)

    def last_used() -> dict[str, datetime | None]:
        query = select(api_keys.c.id, api_keys.c.last_used_at).where(api_keys.c.app_id == app_id)

        async def work(session: AsyncSession) -> dict[str, datetime | None]:
            return {row.id: row.last_used_at for row in await session.execute(query)}

        return look(database_url, work)

    def use() -> datetime | None:
        with server.client(key) as client:
            Chat(client, user).blocking()
        within(server, server.gateway.keys.write_use())
        times = last_used()
        assert times.pop(unused) is None
        return next(iter(times.values()))

    async def a_minute_later(session: AsyncSession) -> None:
        values = {"last_used_at": now_plus(-USE_SECONDS - 1)}
        await session.execute(update(api_keys).where(api_keys.c.last_used_at.is_not(None)).values(values))

    assert set(last_used().values()) == {None}
    first = use()
    assert first is not None
    assert use() == first, "a minute has not passed"
    look(database_url, a_minute_later)
    again = use()
    assert again is not None
    assert again >= first
    assert duty(server)


def duty(server: GatewayServer) -> bool:
    """Whether the gateway writes it by itself, now and then."""

    async def names() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()}

    return "write_use" in within(server, names())


# -- the key of the settings -----------------------------------------------------------------------


def works(server: GatewayServer, key: str) -> bool:
    with installed(server).client(key) as client:
        status = client.get("/info").status_code
    assert status in (200, 401)
    return status == 200


def test_a_changed_key_in_the_settings_replaces_the_old_one(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Another one takes its place, and it works again when it is set again."""

    def start(key: str) -> GatewayServer:
        return start_gateway(api_key=key)

    server = start("app-one")
    assert works(server, "app-one")
    server.stop()
    assert "is revoked" not in caplog.text
    server = start("app-two")
    assert [works(server, key) for key in ("app-one", "app-two")] == [False, True]
    assert caplog.text.count("the key before is revoked") == 1
    server.stop()
    server = start("app-one")
    assert [works(server, key) for key in ("app-one", "app-two")] == [True, False]
    assert caplog.text.count("the key before is revoked") == 2
    assert "opens nothing" not in caplog.text


def test_a_revoked_key_of_the_settings_stays_revoked(
    start_gateway: StartGateway, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it had been replaced before; the log says that it opens nothing."""
    for key in ("app-one", "app-two"):
        installed(start_gateway(api_key=key)).stop()

    async def ids(session: AsyncSession) -> list[str]:
        named = api_keys.c.label == BOOTSTRAP_LABEL
        found = await session.scalars(
            select(api_keys.c.id).where(named).order_by(api_keys.c.created_at, api_keys.c.id)
        )
        return list(found)

    for key_id in look(database_url, ids):
        revoke(database_url, KeyId(key_id))
    assert "opens nothing" not in caplog.text
    for count, key in enumerate(("app-one", "app-two"), 1):
        server = start_gateway(api_key=key)
        assert not works(server, key)
        assert caplog.text.count("AGENT_GATEWAY_API_KEY opens nothing here") == count
        server.stop()


def test_a_key_of_the_settings_that_belongs_to_another_app_is_reported(
    start_gateway: StartGateway, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = make_key(database_url, an_app(database_url))
    assert works(start_gateway(api_key=key), key), "for its own app"
    assert "AGENT_GATEWAY_API_KEY opens nothing here" in caplog.text


def test_a_new_secret_key_creates_a_new_first_key(
    start_gateway: StartGateway, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """All keys of before open nothing: without one nobody could use the gateway. The log tells that."""

    def printed(**settings: Any) -> str | None:
        server = installed(start_gateway(api_key="", **settings))
        found = PRINTED_KEY.search(capsys.readouterr().out)
        assert found is None or works(server, found[1])
        server.stop()
        return found[1] if found else None

    first = printed()
    assert first
    assert printed() is None
    assert "that open nothing" not in caplog.text
    second = printed(secret_key=SECRET_KEY[::-1])
    assert second not in (None, first)
    assert "API keys that open nothing: 1. They were made under another" in caplog.text
    assert printed() is None, "the first one works again"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_short_secret_key_is_warned_about(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """With Postgres it is refused (test_settings.py)."""
    start_gateway(secret_key="x" * 32).stop()
    assert "fewer than 32 characters" not in caplog.text
    start_gateway(secret_key="swordfish").stop()
    assert caplog.text.count("fewer than 32 characters") == 1
    assert "swordfish" not in caplog.text
