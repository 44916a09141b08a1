"""The alert rules and the dashboard: valid, each rule fires when it should, and all that they ask for exists.

What exists is what a real process answers to a scrape, after turns that went well and turns that did not.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent_gateway.routes.http.errors import STATUSES
from tests.support.chat import Chat, refused
from tests.support.fakes.script import fail, refuse, script
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, wait_until
from tests.support.paths import ROOT
from tests.support.proxies import DEPLOY

MONITORING: Final = DEPLOY / "monitoring"
ALERTS: Final = MONITORING / "alerts.yaml"
UNIT_TESTS: Final = Path(__file__).parent / "alerts.test.yaml"
OF_PROMETHEUS: Final = frozenset({"job", "instance", "le", "alertname", "alertstate"})
"""Labels that Prometheus adds, or that are buckets; `up` and `ALERTS` are its own metrics."""

SELECTOR: Final = re.compile(r"\b((?:agent_gateway|process|python)_\w+|up\b|ALERTS\b)(?:\{([^}]*)\})?")
MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right) ?\(([^)]*)\)")

KNOWN: Final = {
    "code": set(STATUSES),
    "status": {"200", *map(str, STATUSES.values())},
    "result": {"ok", "refused", "unreachable", "garbage"},
}
"""Values that a scrape has only after each kind of failure."""

Series = dict[str, list[dict[str, str]]]


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    """All that the dashboard asks of Prometheus, with values for its variables."""
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["expr"] for one in dashboard()["annotations"]["list"])


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    """What promtool says; it must like what it got."""
    program = shutil.which("promtool")
    assert program, "promtool is missing: run dev/setup"
    done = subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The metrics of a process that was ready, ended a turn, and failed turns in three ways."""
    folder = tmp_path_factory.mktemp("scraped")
    with ScriptedBackend() as backend:
        settings = {"BACKEND_URL": backend.url, "API_KEY": API_KEY, "BACKEND_RECONNECT_SECONDS": 0.1}
        with GatewayProcess(folder, **settings) as process, process.client() as client:
            chat = Chat(client, "ann")
            assert [client.get(probe).status_code for probe in ("/healthz", "/readyz")] == [200, 200]
            heard = chat.streaming("Hello")
            chat.resumed(heard.task_id, after=1)
            backend.queue(script(fail("InvokeRateLimitError")), refuse(422))
            refused(chat.post("Hello", response_mode="blocking"), 429, "rate_limit_error")
            refused(chat.post("Hello", response_mode="blocking"), 502, "backend_refused")
            backend.stop()
            refused(chat.post("Hello", response_mode="blocking"), 503, "service_unavailable")
            # The database is looked at now and then; its gauges have no values before that.
            wait_until(lambda: "outbox_entries{" in client.get("/metrics").text)
            return client.get("/metrics").text


@pytest.fixture(scope="module")
def series(scraped: str) -> Series:
    """The labels of all series, by the name of their metric."""
    found: Series = {"up": [{}], "ALERTS": [{}]}
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", ALERTS)
    assert "1 rule files found" in promtool("check", "config", MONITORING / "prometheus.yaml")


def test_promtool_takes_the_names_of_the_metrics(scraped: str) -> None:
    assert promtool("check", "metrics", text=scraped) == ""


def test_each_rule_fires_when_it_should_and_not_before() -> None:
    """promtool runs the tests of `alerts.test.yaml`, which has one of both for each rule."""
    cases = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    fires, rests = Counter[str](), Counter[str]()
    for case in cases:
        name, rest = case["name"].split(" ", 1)
        *_, asked = case["promql_expr_test"]
        firing = [sample["labels"] for sample in asked["exp_samples"]]
        is_named = any(f'alertname="{name}"' in labels for labels in firing)
        assert is_named == rest.startswith("fires"), case["name"]
        assert is_named or rest.startswith("does not fire"), case["name"]
        (fires if is_named else rests)[name] += 1
    names = {rule["alert"] for rule in alerts()}
    assert fires.keys() == rests.keys() == names
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_each_rule_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert len(annotations["summary"]) <= 110
    assert len(annotations["description"]) > 100
    path, _, anchor = annotations["runbook"].partition("#")
    page = (ROOT / path).read_text()
    assert not anchor or anchor in [
        heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    ]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids)) > 30
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    places = [place for panel in dashboard()["panels"] for place in cells(panel["gridPos"])]
    assert max(Counter(places).values()) == 1, "panels lie on each other"
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Turns", "Time", "Backend", "Survival", "Process"]


def cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
    for x in range(place["x"], place["x"] + place["w"]):
        yield from ((x, y) for y in range(place["y"], place["y"] + place["h"]))


def test_promtool_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [query.replace("$__rate_interval", "1m") for query in queries()]
    rules = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(asked)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


def check_query(query: str, series: Series) -> None:
    """Metrics, labels and values of labels that it names exist."""
    asked = [found.groups() for found in SELECTOR.finditer(query)]
    assert asked, query
    known = set(OF_PROMETHEUS)
    for name, matchers in asked:
        assert name in series, f"there is no metric {name}: {query}"
        labels = {label for one in series[name] for label in one}
        known |= labels
        for label, values in MATCHER.findall(matchers or ""):
            assert label in labels | OF_PROMETHEUS, f"{name} has no label {label}: {query}"
            if label not in OF_PROMETHEUS:
                seen = KNOWN.get(label) or {one[label] for one in series[name]}
                wrong = [
                    one for one in values.split("|") if not any(re.fullmatch(one, have) for have in seen)
                ]
                assert not wrong, f"{name} has no {label} like {wrong}: {sorted(seen)}"
    for group in GROUPING.findall(query):
        assert {label.strip() for label in group.split(",")} - {""} <= known, query


def test_all_that_is_asked_for_exists(series: Series) -> None:
    for query in (*(rule["expr"] for rule in alerts()), *queries()):
        check_query(query, series)


@pytest.mark.parametrize(
    "query",
    [
        "rate(agent_gateway_turns_started_total[5m])",
        'agent_gateway_turns_ended_total{result="failed"}',
        'agent_gateway_turns_ended_total{outcome="fine"}',
        'agent_gateway_turns_ended_total{outcome="failed", code!~"content_filtered|too_much"}',
        "sum by (user) (agent_gateway_turns_ended_total)",
    ],
)
def test_a_query_for_what_does_not_exist_is_found(query: str, series: Series) -> None:
    with pytest.raises(AssertionError):
        check_query(query, series)


def test_each_metric_of_the_gateway_is_on_the_dashboard(series: Series) -> None:
    shown = {name for query in queries() for name, _ in SELECTOR.findall(query)}
    shown |= {name.removesuffix("_bucket") for name in shown}
    made = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series if name.startswith("agent_gateway_")}
    assert made - shown == set()
