"""The pauses of the Python client: bounded, doubled, spread, and as long as the gateway asks."""

from email.utils import formatdate
from time import time

import pytest

from agent_gateway.routes.http.errors import STATUSES
from agent_gateway_client import ConnectionLost, GatewayError, Retry, TooManyRequests, Unavailable
from agent_gateway_client.errors import BY_CODE, error_of, error_of_response
from agent_gateway_client.retry import Attempts

CUT = ConnectionLost("cut")


def test_pauses_double_up_to_the_longest_and_end() -> None:
    attempts = Attempts(Retry(attempts=6, first_seconds=1.0, longest_seconds=8.0))
    pauses = [attempts.pause_after(CUT) for _ in range(6)]
    for pause, longest in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= pause <= longest
    with pytest.raises(ConnectionLost):
        attempts.pause_after(CUT)
    attempts.succeeded()
    assert attempts.pause_after(CUT) <= 1


def test_pauses_differ_from_reader_to_reader() -> None:
    assert len({Attempts(Retry()).pause_after(CUT) for _ in range(20)}) > 10


def test_many_failures_overflow_nothing() -> None:
    attempts = Attempts(Retry(attempts=3000))
    assert all(attempts.pause_after(CUT) <= 8.0 for _ in range(3000))


@pytest.mark.parametrize(
    ("told", "seconds"), [("7", 7.0), (None, None), ("soon", None), ("-1", None), (formatdate(0), 0.0)]
)
def test_a_retry_after_is_a_number_or_a_date(told: str | None, seconds: float | None) -> None:
    assert error_of_response(503, b"", told).retry_after == seconds


def test_a_date_in_the_future_is_that_many_seconds() -> None:
    seconds = error_of_response(503, b"", formatdate(time() + 100, usegmt=True)).retry_after
    assert seconds is not None
    assert 90 < seconds <= 100


def test_errors_with_a_class_are_errors_of_the_gateway() -> None:
    # A form's errors and those of ids are told with other statuses, so they are not among the failures.
    assert set(BY_CODE) <= set(STATUSES)
    assert type(error_of("rate_limit_error", "Slow down.", 429)) is TooManyRequests
    assert type(error_of("provider_unavailable", "Away.", 503)) is Unavailable
    assert type(error_of("new_in_the_next_release", "?", 418)) is GatewayError


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"code": 1}', b"\xff", b"null"])
def test_a_body_of_somebody_else_is_an_unexpected_response(body: bytes) -> None:
    assert error_of_response(500, body, None).code == "unexpected_response"
