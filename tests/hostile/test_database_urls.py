"""A database URL is obeyed or refused in one line; TLS with real certificates."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from agent_gateway.errors import StoreUnavailable
from agent_gateway.limits import Limits, StartLimits
from agent_gateway.store.db.database import Database
from tests.support.certificates import make_certificates
from tests.support.gateway_process import GatewayProcess, environment
from tests.support.gateway_server import BOUND, SECRET_KEY, GatewayServer
from tests.support.pgbouncer import PgBouncer

pytestmark = pytest.mark.anyio

SECRET = "swordfish"


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://u:{SECRET}@host/db?sslmod=require", "Did you mean sslmode?"),
        (f"postgresql://u:{SECRET}@host/db?sslrootcert=/no/file", "sslrootcert names /no/file"),
        (f"postgresql://u:{SECRET}@host:x/db", "is no URL like postgresql://"),
        (f"mysql://u:{SECRET}@host/db", "only SQLite and Postgres"),
    ],
)
def test_a_bad_url_is_reported_in_one_line_before_the_start(
    command: str, url: str, said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent_gateway", command],
        cwd=tmp_path,
        env=environment(DATABASE_URL=url, SECRET_KEY=SECRET_KEY, DATA_DIR=tmp_path / "data"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr + done.stdout


def test_migrate_reports_an_unreachable_database(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent_gateway", "migrate"],
        cwd=tmp_path,
        env=environment(DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/db", SECRET_KEY=SECRET_KEY),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "127.0.0.1:1, database db" in done.stderr
    assert "is Postgres running" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", ["127.0.0.1:1", "no-such-host.invalid"])
def test_a_server_without_its_database_is_not_ready_and_logs_no_traceback(tmp_path: Path, place: str) -> None:
    with GatewayProcess(
        tmp_path, DATABASE_URL=f"postgresql://u:{SECRET}@{place}/db", SECRET_KEY=SECRET_KEY
    ) as process:
        ready = httpx.get(f"{process.url}/readyz", timeout=20, trust_env=False)
        assert (ready.status_code, ready.json()["code"]) == (503, "service_unavailable")
        assert httpx.get(f"{process.url}/healthz", trust_env=False).status_code == 200
        assert "Traceback" not in process.output
        assert "AGENT_GATEWAY_DATABASE_URL" in process.output
        assert SECRET not in process.output


def test_a_server_whose_database_refuses_it_answers_probes_at_once(tmp_path: Path) -> None:
    """It listens once its database has answered, even with a refusal."""
    limits = Limits(start=StartLimits(listen_seconds=10 * BOUND))
    with GatewayServer(tmp_path, limits=limits, database_url="postgresql://u:p@127.0.0.1:1/db") as server:
        assert httpx.get(f"{server.url}/healthz", timeout=BOUND, trust_env=False).status_code == 200


async def says(url: str) -> str:
    """The error of a connection that fails; empty when it succeeds."""
    database = Database(url)
    try:
        await database.ping()
    except StoreUnavailable as error:
        return str(error)
    finally:
        await database.close()
    return ""


async def test_server_certificates_are_verified_as_the_url_asks(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_certificates(tmp_path)
    root = str(tmp_path / "root.crt")
    with PgBouncer(postgres_url, "transaction", certificates=tmp_path) as server:
        assert await says(server.url(sslmode="require")) == ""
        assert await says(server.url(sslmode="verify-full", sslrootcert=root)) == ""
        # Their certificate is of a root that the system does not know.
        for query in (
            {"sslmode": "verify-full", "sslrootcert": "system"},
            {"sslmode": "require", "channel_binding": "require"},
        ):
            assert "its certificate is not trusted" in await says(server.url(**query))
        assert await says(server.url(channel_binding="require", sslrootcert=root)) == ""
        assert "disable" not in await says(server.url(sslmode="prefer"))
        assert await says(server.url(sslmode="disable")) != ""


async def test_a_client_certificate_is_sent(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_certificates(tmp_path)
    own = {"sslcert": str(tmp_path / "client.crt"), "sslkey": str(tmp_path / "client.key")}
    root = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "root.crt")}
    with PgBouncer(postgres_url, "transaction", certificates=tmp_path, of_clients=True) as server:
        assert await says(server.url(**root, **own)) == ""
        assert await says(server.url(**root)) != ""
