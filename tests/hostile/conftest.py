"""Attacks use the gateways, backends and databases of the other tests."""

from tests.gateway.conftest import (
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

__all__ = [
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
