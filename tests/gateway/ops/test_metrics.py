"""What Prometheus gets: counted where it happens, looked up when asked for, and the same from any worker."""

import math
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_gateway.metrics import GAP_SECONDS, count_gaps, gaps
from agent_gateway.turn_times import MEASURED
from tests.support.chat import Chat, refused
from tests.support.fakes.script import Gate, fail, refuse, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet
from tests.support.gateway_process import START_SECONDS, GatewayProcess
from tests.support.gateway_server import API_KEY, wait_until
from tests.support.ports import hold_port

CANARY = "canary-of-the-coal-mine"
ENDED = [("completed", ""), ("failed", "rate_limit_error"), ("failed", "backend_refused"), ("stopped", "")]


class Scrape:
    """What one request for the metrics brought."""

    def __init__(self, client: httpx.Client) -> None:
        answer = client.get("/metrics", headers={"Authorization": ""})
        assert answer.status_code == 200
        self.text = answer.text
        self.media_type = answer.headers["Content-Type"]
        families = text_string_to_metric_families(answer.text)
        self._samples = {
            (one.name.removeprefix("agent_gateway_"), tuple(sorted(one.labels.items()))): one.value
            for family in families
            for one in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of a series; 0 when nothing was counted yet."""
        return self._samples.get((name, tuple(sorted(labels.items()))), 0.0)


def settings_of(backend: ScriptedBackend, **more: Any) -> dict[str, Any]:
    return {"BACKEND_URL": backend.url, "API_KEY": API_KEY, **more}


def test_turns_requests_and_calls_of_the_backend_are_counted(
    tmp_path: Path, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    fake.queue(script(text("One", "two", "three"), succeed()), script(fail("InvokeRateLimitError")))
    fake.queue(refuse(422), script(text("Half "), gate, succeed()))
    with GatewayProcess(tmp_path, **settings_of(fake)) as process, process.client() as client:
        chat = Chat(client, user)
        whole = chat.streaming("Hello")
        refused(chat.post("Hello", response_mode="blocking"), 429, "rate_limit_error")
        refused(chat.post("Hello", response_mode="blocking"), 502, "backend_refused")
        with chat.open("Long") as stream:
            stream.until("Half ")
            during = Scrape(client)
            chat.stop(stream.task_id)
            stream.rest()
        assert len(chat.resumed(whole.task_id, after=1).events) == 3
        client.get("/chat-messages/01a22a8a-1c81-77df-b105-68dbe2645641/events?user=x&after=3")
        for path in ("/info", "/v1/info"):
            client.get(path)
        wait_until(lambda: Scrape(client)("turns_ended_total", outcome="stopped", code=""))
        scrape = Scrape(client)
    assert during("turns_active") == during("readers_open") == 1
    assert during("readers_behind") == 0
    assert scrape("turns_active") == scrape("readers_open") == 0
    assert scrape("turns_begun_total") == 4
    ended = [
        ("completed", ""),
        ("failed", "rate_limit_error"),
        ("failed", "backend_refused"),
        ("stopped", ""),
    ]
    assert [scrape("turns_ended_total", outcome=one, code=code) for one, code in ended] == [1, 1, 1, 1]
    assert scrape("turn_duration_seconds_count", outcome="completed") == 1
    assert scrape("turn_first_event_seconds_count", part="gateway") == 2
    assert scrape("turn_first_event_seconds_count", part="backend") == 2
    assert scrape("turn_stop_seconds_count") == 1
    assert scrape("tokens_total", kind="completion") > 0
    statuses = [
        scrape("http_requests_total", method="POST", route="/chat-messages", status=str(one))
        for one in (200, 429, 502)
    ]
    assert statuses == [2, 1, 1]
    assert scrape("http_requests_total", method="GET", route="/info", status="200") == 2
    assert scrape("backend_calls_total", call="create", result="ok") == 3
    assert scrape("backend_calls_total", call="create", result="refused") == 1
    assert scrape("backend_calls_total", call="stream", result="ok") == 3
    assert scrape("backend_calls_total", call="cancel", result="ok") >= 1
    assert (scrape("resumes_total", kind="exact"), scrape("resumes_total", kind="gone")) == (1, 1)
    assert scrape("database_pool_size", pool="requests") == 5
    assert user not in scrape.text


def test_what_only_the_database_knows_is_not_a_number_without_it(tmp_path: Path) -> None:
    """Zeros would say that nothing waits."""
    with hold_port() as held:
        nobody = f"postgresql://nobody@127.0.0.1:{held.getsockname()[1]}/none"
        with GatewayProcess(tmp_path, DATABASE_URL=nobody) as process, process.client() as client:
            scrape = Scrape(client)
    assert math.isnan(scrape("turns_queued"))
    assert math.isnan(scrape("turns_queued_oldest_seconds"))
    assert math.isnan(scrape("outbox_entries", kind="cancel_run"))
    assert math.isnan(scrape("outbox_oldest_seconds"))


def test_queued_turns_and_the_age_of_the_oldest_are_looked_up(
    tmp_path: Path, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    fake.queue(script(text("Half "), gate, succeed()))
    with GatewayProcess(tmp_path, **settings_of(fake)) as process, process.client() as client:
        chat = Chat(client, user)
        first = chat.background("Long")
        chat.background("Next", conversation_id=first["conversation_id"])
        # The database is looked at now and then.
        wait_until(lambda: Scrape(client)("turns_queued") == 1)
        assert Scrape(client)("turns_queued_oldest_seconds") > 0
        gate.open()


def test_the_gaps_of_one_turn_in_eight_are_measured(tmp_path: Path, fake: ScriptedBackend, user: str) -> None:
    gates = [Gate() for _ in range(MEASURED + 1)]
    fake.queue(*[script(text("Half "), gate, text("whole"), succeed()) for gate in gates])
    counts = []
    with GatewayProcess(tmp_path, **settings_of(fake)) as process, process.client() as client:
        chat = Chat(client, user)
        for gate in gates:
            with chat.open("Long") as stream:
                stream.until("Half ")
                gate.open()
                stream.rest()
            counts.append(Scrape(client)("turn_chunk_gap_seconds_count"))
        total = Scrape(client)("turn_chunk_gap_seconds_sum")
    assert counts[0] > 0
    assert counts[:MEASURED] == [counts[0]] * MEASURED
    assert counts[MEASURED] > counts[0]
    assert total > 0


def gap_samples() -> dict[str, float]:
    [family] = GAP_SECONDS.collect()
    return {one.labels.get("le", one.name): one.value for one in family.samples}


def test_the_gaps_of_turns_are_those_that_the_library_would_have_counted() -> None:
    count_gaps()
    seconds = [0.0, 0.0004, 0.0005, 0.003, 0.1, 20.0, 20.0]
    before = gap_samples()
    for one in seconds:
        GAP_SECONDS.observe(one)
    between = gap_samples()
    gaps.extend(reversed(seconds))
    count_gaps()
    after = gap_samples()
    observed = {name: between[name] - value for name, value in before.items()}
    assert {name: after[name] - value for name, value in between.items()} == pytest.approx(observed)
    assert observed["agent_gateway_turn_chunk_gap_seconds_count"] == len(seconds)


def adopted(client: httpx.Client, source: str) -> float:
    return Scrape(client)("turns_adopted_total", source=source)


def test_adoptions_and_releases_are_counted(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    fake.queue(*[script(text("Half "), gate, text("whole"), succeed())] * 2)
    first, second, third = (fleet.process().ready() for _ in range(3))
    with second.client() as seen, third.client() as last:
        with first.client() as client, Chat(client, user).open("Long") as stream:
            stream.until("Half ")
            first.send(signal.SIGKILL)
        wait_until(lambda: adopted(seen, "dead") + adopted(last, "dead") == 1)
        owner, rest = (second, last) if adopted(seen, "dead") else (third, seen)
        owner.send(signal.SIGTERM)
        wait_until(lambda: adopted(rest, "released") == 1)
        gate.open()
        owner.exited()


def is_up(process: GatewayProcess) -> bool:
    try:
        with process.client() as client:
            return client.get("/readyz").status_code == 200
    except httpx.ConnectError:
        return False


def test_every_worker_tells_the_metrics_of_all(
    postgres_url: str, tmp_path: Path, fake: ScriptedBackend, user: str
) -> None:
    settings = settings_of(fake, DATABASE_URL=postgres_url)
    with GatewayProcess(tmp_path, "--workers", "2", **settings) as process:
        wait_until(lambda: is_up(process), START_SECONDS)
        for _ in range(8):
            with process.client() as client:
                Chat(client, user).blocking("Hello")
        for _ in range(8):
            with process.client() as client:
                wait_until(lambda: Scrape(client)("turns_ended_total", outcome="completed", code="") == 8)
                assert Scrape(client)("turns_begun_total") == 8
                assert Scrape(client)("build_info", version="0.1.0") == 1


def test_a_gateway_without_metrics_has_no_such_route(
    tmp_path: Path, fake: ScriptedBackend, user: str
) -> None:
    settings = settings_of(fake, METRICS="false")
    with GatewayProcess(tmp_path, **settings) as process, process.client() as client:
        Chat(client, user).blocking("Hello")
        refused(client.get("/metrics"), 404, "not_found")


def test_what_a_scraper_asks_for_decides_the_format(tmp_path: Path, fake: ScriptedBackend, user: str) -> None:
    with GatewayProcess(tmp_path, **settings_of(fake)) as process, process.client() as client:
        plain = client.get("/metrics")
        open_metrics = client.get(
            "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        )
        client.get(f"/{CANARY}")
        assert plain.headers["Content-Type"].startswith("text/plain")
        assert open_metrics.headers["Content-Type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")
        text_now = client.get("/metrics").text
        assert 'route="(no route)",status="404"' in text_now
        assert CANARY not in text_now
