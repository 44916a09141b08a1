"""What can be told without a turn: address, certificate, clock, probes, key."""

import ssl
import time
from collections.abc import Callable, Generator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from agent_gateway.cli.doctor.client import Answer, Broken, Gateway
from agent_gateway.cli.findings import Finding

OK: Final = 200
UNAUTHORIZED: Final = 401
DAYS: Final = 14
"""A certificate that is valid for less is told."""
CLOCK_SECONDS: Final = 30.0
"""Clocks may differ by so much. Tickets and logs are by the clock of the database or the server."""


def look(gateway: Gateway) -> Generator[Finding, None, bool]:
    """All these points. Returns whether turns can be tried."""
    try:
        with gateway.connection() as connection:
            certificate = gateway.open(connection)
            asked = time.time()
            alive = gateway.probe("/healthz", on=connection)
    except Broken as error:
        hint = "see host and port, the firewall, and whether the proxy and the gateway run"
        if "certificate" in str(error):
            hint = "install one that clients trust, with all intermediate certificates"
        yield Finding("reachable", False, f"{error}: {hint}")
        return False
    is_gateway = alive.status == OK and alive.json.get("status") == "ok"
    elsewhere = (
        f"GET /healthz answers {alive.told}, and not as a gateway does: "
        "see the path of --url, and to which server the proxy passes this host and path"
    )
    yield Finding("reachable", is_gateway, "GET /healthz answers 200" if is_gateway else elsewhere)
    yield _tls(gateway, certificate)
    yield clock(alive, asked)
    if not is_gateway:
        return False
    ready = tried("ready", lambda: _ready(gateway))
    yield ready
    if not ready.ok:
        return False
    key = tried("key", lambda: _key(gateway))
    yield key
    return key.ok


def tried(point: str, work: Callable[[], tuple[bool, str]]) -> Finding:
    """What came of it; an answer that does not come is a fault."""
    try:
        return Finding(point, *work())
    except Broken as error:
        return Finding(point, False, str(error))


def _tls(gateway: Gateway, certificate: Mapping[str, Any]) -> Finding:
    if gateway.scheme == "http":
        return Finding("tls", True, "none: fine within one machine, elsewhere keys can be read on the way")
    left = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86400
    told = f"the certificate is valid for {left:.0f} more days"
    return Finding("tls", left >= DAYS, told if left >= DAYS else f"{told}: renew it")


def clock(answer: Answer, asked: float) -> Finding:
    """What the date of an answer says, which was asked for at that time of this machine."""
    try:
        there = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except ValueError:
        return Finding("clock", True, "the answer has no date: the difference to this clock cannot be told")
    # A date has whole seconds, and was written between the request and its answer.
    off = there - min(max(there, asked - 1.0), time.time())
    if abs(off) <= CLOCK_SECONDS:
        return Finding("clock", True, f"differs from this machine's by {abs(off):.0f} s")
    word = "behind" if off < 0 else "ahead of"
    return Finding(
        "clock", False, f"the server's is {abs(off):.0f} s {word} this machine's: see to NTP on both of them"
    )


def _ready(gateway: Gateway) -> tuple[bool, str]:
    answer = gateway.probe("/readyz")
    if answer.status == OK:
        return True, "GET /readyz answers 200"
    said = answer.json.get("message") or "it is not answered by the gateway."
    return False, f"GET /readyz answers {answer.told}: {said} The rest can be tried when it is ready."


def _key(gateway: Gateway) -> tuple[bool, str]:
    path = f"/parameters?{gateway.as_query}"
    answer = gateway.ask("GET", path)
    if answer.status == UNAUTHORIZED:
        hint = "see `agent-gateway key list APP`, and whether the proxy passes on the header Authorization"
        return False, f"it is not accepted (401): {hint}"
    if answer.status != OK:
        return False, f"GET /parameters answers {answer.told}"
    if gateway.ask("GET", path, key="app-nobody").status == OK:
        return False, "any key is accepted: something before the gateway puts its own into requests"
    return True, "accepted, and another one is not"
