"""What clients send does not reach the log, least of all while the database is away."""

import logging
from pathlib import Path

import pytest

from agent_gateway.logs import TextFormatter
from tests.fakes.scripted_backend import ScriptedBackend
from tests.fakes.tcp_proxy import postgres_proxy, through
from tests.gateway.chat import refused
from tests.gateway.rows import installed
from tests.gateway_server import GatewayServer

TOKEN = "a-token-that-lets-anybody-answer"


def test_paths_are_not_logged_while_the_database_is_away(
    postgres_url: str, fake: ScriptedBackend, tmp_path: Path, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        postgres_proxy(postgres_url) as proxy,
        GatewayServer(tmp_path, database_url=through(proxy, postgres_url), backend_url=fake.url) as server,
        installed(server).client() as client,
    ):
        assert client.get("/conversations", params={"user": user}).status_code == 200
        proxy.cut()
        for path in (f"/form/human_input/{TOKEN}", f"/form/human_input/x%1b%5d0;{TOKEN}%07%0d%0aERROR"):
            refused(client.get(path, params={"user": user}), 503, "service_unavailable")
    told = [record.getMessage() for record in caplog.records if "store:" in record.getMessage()]
    assert len(told) >= 2
    assert all(line.isprintable() for line in told)
    assert TOKEN not in caplog.text
    assert "/form/human_input/{form_token}" in told[0]


def test_a_line_shows_what_a_terminal_would_act_on() -> None:
    record = logging.LogRecord(
        "x", logging.ERROR, "", 0, "one\r\n\x1b]0;%s\x07 \u2028 \x9b é 张", ("two",), None
    )
    assert TextFormatter("%(message)s").format(record) == ("one\\r\\n\\x1b]0;two\\x07 \\u2028 \\x9b é 张")
