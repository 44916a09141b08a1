"""Attacks use the gateways, backends and databases of the other tests."""

from collections.abc import Iterator

import pytest

from tests.gateway.conftest import (
    chat,
    client,
    database_url,
    fake,
    fleet,
    gate,
    postgres_template,
    postgres_url,
    server,
    shared_fake,
    shared_kind,
    shared_server,
    sqlite_template,
    start_gateway,
    user,
)
from tests.hostile.raw import RecordingServer

__all__ = [
    "chat",
    "client",
    "database_url",
    "fake",
    "fleet",
    "gate",
    "postgres_template",
    "postgres_url",
    "server",
    "shared_fake",
    "shared_kind",
    "shared_server",
    "sqlite_template",
    "start_gateway",
    "user",
]


@pytest.fixture
def recording() -> Iterator[RecordingServer]:
    """The project's server with an application that records requests."""
    with RecordingServer() as server:
        yield server
