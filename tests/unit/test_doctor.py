"""What the doctor makes of a date, and of the span of time that a command was given."""

import time
from email.message import Message
from email.utils import formatdate

import pytest

from agent_gateway.cli.doctor.client import Answer, Gateway
from agent_gateway.cli.doctor.surface import clock
from agent_gateway.cli.values import duration, printable, span
from agent_gateway.errors import ConfigError


def answer(date: str | None) -> Answer:
    headers = Message()
    if date is not None:
        headers["Date"] = date
    return Answer(200, headers, b"", 0.0)


@pytest.mark.parametrize(
    ("off", "is_ok", "said"),
    [
        (0, True, "differs from this machine's by 0 s"),
        (-20, True, "by "),
        (-120, False, "s behind this machine's"),
        (120, False, "s ahead of this machine's"),
    ],
)
def test_a_clock_that_is_wrong_is_found(off: int, is_ok: bool, said: str) -> None:
    now = time.time()
    found = clock(answer(formatdate(now + off, usegmt=True)), now)
    assert found.ok == is_ok
    assert said in found.said


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_without_a_date_nothing_is_said_of_the_clock(date: str | None) -> None:
    found = clock(answer(date), time.time())
    assert found.ok
    assert "cannot be told" in found.said


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://example.com", "http://", "http://a:b@c", "http://x:port"]
)
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--url is no URL"):
        Gateway.at(url, "app-key", "doctor")


def test_a_key_that_no_header_carries_is_refused_without_telling_it() -> None:
    with pytest.raises(ConfigError, match="--key holds spaces") as refused:
        Gateway.at("http://example.com", "sword fish", "doctor")
    assert "fish" not in str(refused.value)
    assert "swordfish" not in repr(Gateway.at("http://example.com", "swordfish", "doctor"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("15m", 900.0), (" 2h ", 7200.0), ("7d", 604800.0)]
)
def test_a_span_of_time_is_read(text: str, seconds: float) -> None:
    assert duration(text, "--since") == seconds


@pytest.mark.parametrize("text", ["", "2", "2w", "-2h", "0s", "1.5h", "2 h", "36501d", "9999999999h"])
def test_another_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--since .* is no span of time"):
        duration(text, "--since")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-0.2, "0.0s"), (0.44, "0.4s"), (12.9, "12s"), (185, "3m05s"), (8040, "2h14m"), (788_400, "9d03h")],
)
def test_a_span_of_time_is_written_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert printable("user\x1b[31m\n\u202eé") == "user?[31m??é"
