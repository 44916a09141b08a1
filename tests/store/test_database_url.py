"""Database URLs as hosts give them out: honoured, or refused in words."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_gateway.errors import ConfigError, StoreUnavailable
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.url import PostgresAddress, async_url, postgres_address
from tests.support.fakes.tcp_proxy import postgres_proxy

pytestmark = pytest.mark.anyio

SECRET = "swordfish"


def address(url: str) -> PostgresAddress:
    return postgres_address(async_url(url))


def places(url: str) -> list[str]:
    return [str(host) for host in address(url).hosts]


# --- parts


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40ss", "p@ss"),
        ("p@ss", "p@ss"),
        ("p@ss@", "p@ss@"),
        ("p:ss", "p:ss"),
        ("p%2Fs%3Fs%23s%25", "p/s?s#s%"),
        ("p#s[s]", "p#s[s]"),
        ("p%ss", "p%ss"),
        ("p+ss", "p+ss"),
        ("пароль", "пароль"),
        ("", ""),
    ],
)
def test_passwords_are_decoded(written: str, password: str) -> None:
    found = address(f"postgresql://ann:{written}@host:5433/db")
    assert found.login == {"user": "ann", "password": password, "database": "db"}
    assert [str(host) for host in found.hosts] == ["host:5433"]


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgres://host/db", ["host:5432"]),
        ("postgres://u@one:1,two:2,three/db", ["one:1", "two:2", "three:5432"]),
        ("postgres://u@[::1]:6543/db", ["[::1]:6543"]),
        ("postgres://u@[::1]:1,[fe80::1]/db", ["[::1]:1", "[fe80::1]:5432"]),
        ("postgres://u@/db?host=one&host=two:7", ["one:5432", "two:7"]),
        ("postgres://u@/db?host=one,two&port=7,8", ["one:7", "two:8"]),
        ("postgres://u@/db?host=/var/run/postgresql", ["/var/run/postgresql:5432"]),
        ("postgres://u@%2Fvar%2Frun%2Fpostgresql/db", ["/var/run/postgresql:5432"]),
        ("postgres://u@/db?host=/tmp&port=5499", ["/tmp:5499"]),
        ("postgres:///db", []),
    ],
)
def test_hosts_ports_and_sockets_are_read(url: str, hosts: list[str]) -> None:
    assert places(url) == hosts


def test_the_name_and_the_user_can_be_parameters() -> None:
    found = address("postgresql://host?dbname=db&user=ann&password=p")
    assert found.login == {"user": "ann", "password": "p", "database": "db"}


def test_a_user_name_can_contain_its_server() -> None:
    assert address("postgresql://ann@server:p@host/db").login["user"] == "ann@server"


def test_urls_of_hosting_providers_are_accepted() -> None:
    neon = address("postgresql://u:p@ep-x.example/neondb?sslmode=require&channel_binding=require")
    assert neon.tls == {"sslmode": "verify-full", "sslrootcert": "system"}
    context = neon.arguments(neon.hosts[0])["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.get_ca_certs() != [] or ssl.get_default_verify_paths().capath is not None
    routed = address("postgresql://u:p@host/db?sslmode=require&options=endpoint%3Dep-x")
    assert routed.startup_options == "endpoint=ep-x"
    pooled = address("postgres://u:p@host:6543/postgres?pgbouncer=true&connect_timeout=15")
    assert (pooled.pooled, pooled.connect_seconds) == (True, 15.0)


def test_connection_settings_are_read() -> None:
    found = address(
        "postgres://host/db?application_name=mine&options=-c%20search_path%3Da,b%20--lock-timeout%3D5s%20-cx.y%3D1"
    )
    assert found.settings == {
        "application_name": "mine",
        "search_path": "a,b",
        "lock_timeout": "5s",
        "x.y": "1",
    }


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("postgres://one/db", "any"),
        ("postgres://one,two/db", "read-write"),
        ("postgres://one,two/db?target_session_attrs=any", "any"),
        ("postgres://one/db?target_session_attrs=primary", "primary"),
    ],
)
def test_targets(url: str, target: str) -> None:
    assert address(url).target == target


def test_parameters_without_effect_are_accepted() -> None:
    address(
        "postgres://host/db?sslmode=prefer&channel_binding=prefer&gssencmode=disable&keepalives=1"
        "&client_encoding=UTF8&connect_timeout=0&sslcompression=0&sslsni=1&load_balance_hosts=disable"
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("sslmod=require", "'sslmod' is not supported. Did you mean sslmode?"),
        ("schema=public", "'schema' is not supported"),
        ("service=x", "'service' is not supported"),
        ("sslmode=no-verify", "sslmode can only be disable or allow or"),
        ("channel_binding=perhaps", "channel_binding can only be"),
        ("target_session_attrs=standby", "target_session_attrs can only be any or read-write or primary"),
        ("gssencmode=require", "gssencmode can only be"),
        ("connect_timeout=soon", "connect_timeout is a number of seconds"),
        ("sslrootcert=/no/such/file", "sslrootcert names /no/such/file"),
        ("sslcert=/no/such/file", "sslcert names /no/such/file"),
        ("sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
        ("sslmode=require&sslrootcert=system", "sslrootcert=system needs sslmode=verify-full"),
        ("sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require"),
        ("port=none", "a host or port in it is none"),
        ("host=a,b,c&port=1,2", "names 3 hosts and 2 ports"),
    ],
)
def test_parameters_that_cannot_be_honoured_are_refused(
    query: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    host = "" if "host=" in query else "host"
    with pytest.raises(ConfigError, match="AGENT_GATEWAY_DATABASE_URL") as refused:
        address(f"postgresql://ann:{SECRET}@{host}/db?{query}")
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_invalid_certificates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "root.crt").write_text("no certificate")
    with pytest.raises(ConfigError, match="certificates cannot be used"):
        address(f"postgresql://host/db?sslmode=verify-ca&sslrootcert={tmp_path / 'root.crt'}")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}/x@host/db",
        f"postgresql://ann:{SECRET}@host:70000/db",
        f"postgresql://ann:{SECRET}@host:port/db",
        f"postgresql://ann:{SECRET}@[::1/db",
        f"postgresql:ann:{SECRET}@host/db",
        f"postgresql//{SECRET}",
        f"host=localhost password={SECRET}",
    ],
)
def test_an_invalid_value_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://user:password@host:5432/name") as refused:
        async_url(url)
    assert SECRET not in str(refused.value)


# --- what a connection that fails says


@pytest.fixture
def listening() -> Iterator[int]:
    """A port where connections are taken and nothing is said."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


async def failure(url: str) -> str:
    database = Database(url)
    with pytest.raises(StoreUnavailable) as failed:
        await database.ping()
    await database.close()
    assert SECRET not in str(failed.value)
    assert "\n" not in str(failed.value)
    return str(failed.value)


async def test_a_failed_connection_names_its_address_and_a_remedy(postgres_url: str, listening: int) -> None:
    refused = await failure(f"postgresql://ann:{SECRET}@127.0.0.1:1/db")
    assert "127.0.0.1:1, database db" in refused
    assert "is Postgres running" in refused
    unknown = await failure(f"postgresql://ann:{SECRET}@no-such-host.invalid/db")
    assert "no-such-host.invalid:5432" in unknown
    assert "look at the host in AGENT_GATEWAY_DATABASE_URL" in unknown
    silent = await failure(f"postgresql://ann:{SECRET}@127.0.0.1:{listening}/db?connect_timeout=0.2")
    assert f"127.0.0.1:{listening}" in silent
    assert "no answer in time" in silent
    assert "is Postgres running" in await failure(f"postgresql://ann:{SECRET}@/db?host=/no/such/folder")
    both = await failure(f"postgresql://ann:{SECRET}@127.0.0.1:1,127.0.0.1:2/db")
    assert "127.0.0.1:1" in both
    assert "127.0.0.1:2" in both


async def test_the_first_writable_host_is_used(postgres_url: str, listening: int) -> None:
    """One refuses, one says nothing: each has its own time."""
    with postgres_proxy(postgres_url) as proxy:
        parsed = async_url(postgres_url)
        url = (
            f"postgresql://{parsed.username}@127.0.0.1:1,127.0.0.1:{listening},127.0.0.1:{proxy.port}"
            f"/{parsed.database}?connect_timeout=2"
        )
        database = Database(url)
        await database.ping()
        assert str(database._postgres._hosts[0]) == f"127.0.0.1:{proxy.port}"  # type: ignore[union-attr]
        await database.close()
