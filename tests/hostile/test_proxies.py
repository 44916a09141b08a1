"""Behind a real nginx that keeps its connections: no client's bytes become a request of another's."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gateway_server import BOUND, wait_until
from tests.support.http_messages import HIDDEN, UPGRADES, Change, changed, changes, messages
from tests.support.properties import examples
from tests.support.raw_http import Client, RecordingServer, Seen, chunked, request

CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/log crit;
events {{ worker_connections 256; }}
http {{
  access_log off; ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream gateway {{ server 127.0.0.1:{port}; keepalive 4; }}
  add_header X-Passed $request_id always;
  server {{ listen unix:{folder}/plain; location / {{ proxy_pass http://gateway;
    proxy_set_header X-Passed $request_id; }} }}
  server {{ listen unix:{folder}/kept; location / {{ proxy_pass http://gateway;
    proxy_set_header X-Passed $request_id; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
  server {{ listen unix:{folder}/unbuffered; location / {{ proxy_pass http://gateway;
    proxy_set_header X-Passed $request_id; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Expect $http_expect;
    proxy_request_buffering off; proxy_buffering off; }} }}
  server {{ listen unix:{folder}/upgrading; location / {{ proxy_pass http://gateway;
    proxy_set_header X-Passed $request_id; proxy_http_version 1.1; proxy_request_buffering off;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header HTTP2-Settings $http_http2_settings; proxy_set_header Connection "Upgrade"; }} }}
}}
"""
KINDS = ("plain", "kept", "unbuffered", "upgrading")


@pytest.fixture(scope="module")
def behind() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture(scope="module")
def nginx(behind: RecordingServer) -> Iterator[Path]:
    """The folder with the sockets of an nginx before the server, one for each kind of configuration."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "the tests need nginx: dev/setup installs it where it can"
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder = Path(name)
        (folder / "conf").write_text(CONFIGURATION.format(folder=folder, port=behind.port))
        command = [program, "-p", name, "-e", f"{name}/log", "-c", f"{name}/conf"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            wait_until(lambda: process.poll() is not None or all((folder / kind).exists() for kind in KINDS))
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield folder
            process.send_signal(signal.SIGTERM)
            process.wait(BOUND)


def all_passed(behind: RecordingServer) -> None:
    """Every request that was seen is one that nginx passed on, and none was seen twice."""
    assert all(behind.app.passed), behind.app.seen
    assert len(set(behind.app.passed)) == len(behind.app.passed)


def forget(behind: RecordingServer) -> None:
    behind.app.seen.clear()
    behind.app.passed.clear()


@pytest.mark.parametrize("kind", KINDS)
@examples(40)
@given(sent=st.lists(messages(), min_size=1, max_size=4))
def test_each_request_gets_its_own_response(
    nginx: Path, behind: RecordingServer, kind: str, sent: list[tuple[bytes, Seen]]
) -> None:
    forget(behind)
    with Client(str(nginx / kind)) as client:
        client.send(b"".join(raw for raw, _ in sent))
        for _, seen in sent:
            answer = client.answer()
            told = {"method": seen.method, "path": seen.path, "size": len(seen.body)}
            assert answer.json == {**told, "passed": answer.headers["x-passed"]}
    assert behind.app.seen == [seen for _, seen in sent]
    all_passed(behind)


@pytest.mark.parametrize("kind", KINDS)
@examples(150)
@given(sent=st.lists(messages(), min_size=1, max_size=3), broken=changes())
def test_malformed_bytes_do_not_affect_other_clients(
    nginx: Path, behind: RecordingServer, kind: str, sent: list[tuple[bytes, Seen]], broken: list[Change]
) -> None:
    """The next client gets its own response, however nginx handles the bytes and the disconnect."""
    forget(behind)
    with Client(str(nginx / kind)) as client:
        client.send(changed(b"".join(raw for raw, _ in sent), broken))
    with Client(str(nginx / kind)) as client:
        client.send(request("POST", "/next", body=HIDDEN))
        answer = client.answer()
        assert answer.json["passed"] == answer.headers["x-passed"]
        assert (answer.json["path"], answer.json["size"]) == ("/next", len(HIDDEN))
    all_passed(behind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_request_passes_the_proxy_as_a_plain_request(
    nginx: Path, behind: RecordingServer, kind: str, upgrade: str
) -> None:
    forget(behind)
    head = request("POST", "/upgrade", *UPGRADES[upgrade], f"Content-Length: {len(HIDDEN)}")
    with Client(str(nginx / kind)) as client:
        client.send(head, HIDDEN)
        assert client.answer().json["size"] == len(HIDDEN)
    all_passed(behind)


@pytest.mark.parametrize("kind", KINDS)
def test_responses_sent_before_the_body_are_not_mixed_up(
    nginx: Path, behind: RecordingServer, kind: str
) -> None:
    """The server answers without the body, which comes later: through connections that nginx keeps."""
    forget(behind)
    for size in (10, 1000, 100_000, 300_000):
        for body in (HIDDEN * (size // len(HIDDEN) + 1), b"x" * size):
            for sent in (
                request("POST", "/early", f"Content-Length: {len(body)}") + body,
                request("POST", "/early", "Transfer-Encoding: chunked") + chunked(body[:9], body[9:]),
            ):
                with Client(str(nginx / kind)) as client:
                    client.send(sent[:200], sent[200:])
                    early = client.answer()
                with Client(str(nginx / kind)) as client:
                    client.send(request("GET", "/next"))
                    answer = client.answer()
                assert (answer.status, answer.json["path"]) == (200, "/next")
                assert answer.json["passed"] == answer.headers["x-passed"]
                assert early.status in (200, 502), early
    all_passed(behind)


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_bodies_do_not_mix(nginx: Path, behind: RecordingServer, kind: str) -> None:
    forget(behind)
    for sent in (
        request("POST", "/cut", "Content-Length: 1000") + HIDDEN,
        request("POST", "/cut", "Content-Length: 100000") + b"x" * 50_000 + HIDDEN,
        request("POST", "/cut", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n",
        request("POST", "/cut", "Transfer-Encoding: chunked") + b"ffff\r\n" + HIDDEN,
    ):
        with Client(str(nginx / kind)) as client:
            client.send(sent)
        with Client(str(nginx / kind)) as client:
            client.send(request("GET", "/next"))
            answer = client.answer()
            assert answer.json["passed"] == answer.headers["x-passed"]
    wait_until(lambda: behind.app.begun == behind.app.ended)
    assert [seen.whole for seen in behind.app.seen if seen.path == "/cut"].count(True) == 0
    all_passed(behind)
