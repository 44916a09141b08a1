"""Connections take descriptors, but never the last ones; connections beyond the limit wait."""

import resource
import socket
from contextlib import ExitStack

import pytest

from agent_gateway.server import listener
from tests.support.gateway_server import wait_until
from tests.support.raw_http import Client, RecordingServer, request


def test_a_server_raises_its_limit_of_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
        with RecordingServer() as recording, recording.client() as client:
            client.send(request("GET", "/"))
            assert client.answer().status == 200
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_half_of_all_descriptors_are_for_clients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their requests need the others; a connection beyond the limit waits until one is closed."""
    monkeypatch.setattr(listener, "raise_file_limit", lambda: 20)
    with RecordingServer() as recording, ExitStack() as stack:
        assert "only 20 open files are allowed" in caplog.text
        clients = [stack.enter_context(recording.client()) for _ in range(15)]
        for client in clients:
            client.send(request("GET", "/wait"))
        wait_until(lambda: "new connections have to wait" in caplog.text)
        wait_until(lambda: recording.app.begun == 10)
        assert len(recording.connections) == 10
        recording.app.gate.set()
        for client in clients[:10]:
            assert client.answer().status == 200
            client.__exit__()
        for client in clients[10:]:
            assert client.answer().status == 200
    assert caplog.text.count("new connections have to wait") == 1


def test_without_free_descriptors_new_connections_wait(
    recording: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not reset, it is logged once, and they are served as soon as somebody has left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients: list[Client] = []
    try:
        clients += [Client(recording.port) for _ in range(6)]
        for client in clients:
            client.send(request("GET", "/wait"))
        wait_until(lambda: recording.app.begun == 6)
        late = socket.socket()
        late.settimeout(20)
        # All numbers of descriptors below this one are in use.
        with socket.socket() as probe:
            used = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        late.connect(("127.0.0.1", recording.port))
        late.sendall(request("GET", "/late"))
        wait_until(lambda: "new connections have to wait" in caplog.text)
        recording.app.gate.set()
        clients.pop().__exit__()
        assert late.recv(12) == b"HTTP/1.1 200"
        late.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            client.__exit__()
    assert caplog.text.count("new connections have to wait") == 1
