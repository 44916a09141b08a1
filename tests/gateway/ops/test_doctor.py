"""`agent-gateway doctor` against real deployments: a good one, and ones with a fault on the way."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent_gateway.cli.commands import app
from agent_gateway.cli.doctor import client
from agent_gateway.cli.doctor.streams import UNBUFFER
from tests.support.certificates import make_certificates
from tests.support.chat import Chat
from tests.support.fakes.script import fail, script
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_process import GatewayProcess, environment
from tests.support.gateway_server import API_KEY, GatewayServer, wait_until
from tests.support.ports import hold_port

BOUND = 100.0
POINTS = ["reachable", "tls", "clock", "ready", "key"]
TURNS = ["first byte", "buffering", "resume", "reconnect", "stop"]
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/log crit;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_http_version 1.1; proxy_set_header Connection "";
  server {{ listen 127.0.0.1:{good}; location / {{ proxy_pass {url}; }} }}
  server {{ listen 127.0.0.1:{buffers}; location / {{ proxy_pass {url};
    proxy_http_version 1.0; proxy_ignore_headers X-Accel-Buffering; }} }}
  server {{ listen 127.0.0.1:{compresses}; location / {{ proxy_pass {url};
    proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_proxied any; gzip_min_length 0;
    gzip_types text/event-stream; }} }}
  server {{ listen 127.0.0.1:{cuts}; location / {{ proxy_pass {url}; proxy_read_timeout 1s; }} }}
  server {{ listen 127.0.0.1:{forgets}; location / {{ proxy_pass {url};
    proxy_set_header Last-Event-ID ""; }} }}
  server {{ listen 127.0.0.1:{secure} ssl; ssl_certificate {folder}/server.crt;
    ssl_certificate_key {folder}/server.key; location / {{ proxy_pass {url}; }} }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """An nginx before the gateway."""

    folder: Path
    ports: dict[str, int]
    """By what is done there."""


def doctor(url: str, *more: str, key: str = API_KEY, **environ: str) -> dict[str, tuple[str, str]]:
    """Point → ok or WRONG, and what was said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "agent_gateway", "doctor", "--url", url, "--key", key, *more],
        env={**environment(), **environ},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert key not in done.stdout + done.stderr
    assert re.fullmatch("note: real turns are run .*\n", done.stderr), done.stderr
    lines = [re.fullmatch(r"([a-z ]+): +(ok|WRONG) +(\S.*)", line) for line in done.stdout.splitlines()]
    points = {line[1]: (line[2], line[3]) for line in lines if line}
    assert len(points) == len(lines), done.stdout
    assert done.returncode == int("WRONG" in {state for state, _ in points.values()})
    return points


def wrong(points: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {point: said for point, (state, said) in points.items() if state == "WRONG"}


@pytest.fixture(scope="module")
def gateway(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A gateway whose agent is the demo, which counts word by word."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "data").mkdir()
    shutil.copy(sqlite_template, folder / "data" / "agent-gateway.db")
    with GatewayServer(folder / "data", ping_seconds=2.0) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(gateway: GatewayServer) -> Iterator[Nginx]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "the tests need nginx: dev/setup installs it where it can"
    ports = {}
    for name in ("good", "buffers", "compresses", "cuts", "forgets", "secure"):
        with hold_port() as held:
            ports[name] = held.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        make_certificates(Path(name))
        (Path(name) / "conf").write_text(NGINX.format(folder=name, url=gateway.url, **ports))
        command = [program, "-p", name, "-e", f"{name}/log", "-c", f"{name}/conf"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            wait_until(lambda: process.poll() is not None or (Path(name) / "pid").exists())
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield Nginx(Path(name), ports)
            process.send_signal(signal.SIGTERM)
            process.wait(BOUND)


def test_a_good_deployment_has_no_fault_and_keeps_no_conversation(
    gateway: GatewayServer, nginx: Nginx
) -> None:
    points = doctor(f"http://127.0.0.1:{nginx.ports['good']}/v1/", "--user", "probe", "--idle", "3")
    assert wrong(points) == {}
    assert list(points) == [*POINTS, *TURNS, "idle"]
    assert "exactly the rest, on the same connection and on another one" in points["resume"][1]
    assert re.match(r"none: \d+ events came in \d+ reads", points["buffering"][1])
    assert "a stream without events stayed open" in points["idle"][1]
    with gateway.client() as client:
        assert Chat(client, "probe").conversations()["data"] == []
    wait_until(lambda: not gateway.gateway.live.running())


@pytest.mark.parametrize("kind", ["buffers", "compresses"])
def test_a_proxy_that_collects_events_is_found(nginx: Nginx, kind: str) -> None:
    found = wrong(doctor(f"http://127.0.0.1:{nginx.ports[kind]}", "--idle", "0"))
    assert found["buffering"].endswith(UNBUFFER)


def test_a_proxy_that_keeps_pings_back_is_found(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_SECONDS", 5.0)
    url = f"http://127.0.0.1:{nginx.ports['buffers']}"
    done = CliRunner().invoke(app, ["doctor", "--url", url, "--key", API_KEY, "--idle", "10"])
    assert done.exit_code == 1
    idle = done.stdout.splitlines()[-1]
    assert re.match("idle: +WRONG +a stream without events brought no byte within 5 s, not even pings", idle)
    assert idle.endswith(UNBUFFER)


def test_a_proxy_that_cuts_silent_streams_is_found(nginx: Nginx) -> None:
    found = wrong(doctor(f"http://127.0.0.1:{nginx.ports['cuts']}", "--idle", "10"))
    assert list(found) == ["idle"]
    assert "proxy_read_timeout" in found["idle"]


def test_a_certificate_is_looked_at(nginx: Nginx) -> None:
    """One of an unknown root cannot be used at all; one that ends soon is told."""
    url = f"https://127.0.0.1:{nginx.ports['secure']}"
    refused = doctor(url)
    assert list(refused) == ["reachable"]
    assert "certificate is not accepted" in refused["reachable"][1]
    found = wrong(doctor(url, "--idle", "0", SSL_CERT_FILE=str(nginx.folder / "root.crt")))
    assert list(found) == ["tls"]
    assert "valid for 1 more days: renew it" in found["tls"]


def test_a_wrong_key_and_a_wrong_address_are_told_before_any_turn(
    gateway: GatewayServer, unused_port: int
) -> None:
    found = doctor(gateway.url, key="app-wrong")
    assert list(found) == POINTS
    assert "not accepted (401): see `agent-gateway key list" in wrong(found)["key"]
    assert list(wrong(doctor(f"{gateway.url}/somewhere"))) == ["reachable"]
    assert "Connection refused" in wrong(doctor(f"http://127.0.0.1:{unused_port}"))["reachable"]


def test_without_a_database_nothing_else_is_blamed(tmp_path: Path) -> None:
    with hold_port() as held:
        nobody = f"postgresql://nobody@127.0.0.1:{held.getsockname()[1]}/none"
        with GatewayProcess(tmp_path, DATABASE_URL=nobody) as process:
            points = doctor(process.url)
    assert list(wrong(points)) == ["ready"]
    assert points["ready"][1] == (
        "GET /readyz answers 503 service_unavailable: The service can not reach its database. "
        "Please try again. The rest can be tried when it is ready."
    )


def test_a_proxy_that_drops_the_last_event_id_is_found(nginx: Nginx) -> None:
    found = wrong(doctor(f"http://127.0.0.1:{nginx.ports['forgets']}", "--idle", "0"))
    assert list(found) == ["resume", "reconnect"]
    assert "does a proxy drop Last-Event-ID?" in found["resume"]


@pytest.mark.parametrize("shared_kind", ["sqlite"], indirect=True)
def test_what_a_fast_agent_cannot_show_is_said(server: GatewayServer) -> None:
    points = doctor(server.url, "--idle", "1")
    assert wrong(points) == {}
    unknown = {point for point, (_, said) in points.items() if "cannot be told" in said}
    assert {"buffering", "idle"} <= unknown


@pytest.mark.parametrize("shared_kind", ["sqlite"], indirect=True)
def test_a_turn_that_fails_is_told_with_its_code(server: GatewayServer, fake: ScriptedBackend) -> None:
    fake.script = script(said("x"), fail("model_not_found"))
    found = wrong(doctor(server.url, "--idle", "0"))
    assert re.fullmatch(
        r"the turn failed with \w+: see `agent-gateway turns show [0-9a-f-]{36}`", found["first byte"]
    )


@pytest.mark.parametrize("shared_kind", ["sqlite"], indirect=True)
def test_a_turn_that_fails_at_once_is_told_with_where_its_cause_is(
    server: GatewayServer, fake: ScriptedBackend
) -> None:
    fake.script = script(fail("model_not_found"))
    found = wrong(doctor(server.url, "--user", "probe", "--idle", "0"))
    assert found["first byte"] == (
        "POST /chat-messages is answered with 500 internal_server_error: "
        "`agent-gateway turns list --user probe --since 5m` has the cause, if a turn began"
    )
